# syntax=docker/dockerfile:1
# Two stages: the first one installs, the second one only runs. The sandbox, the demo and the tests are in neither.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/broker
COPY requirements.lock /tmp/requirements.lock
RUN /opt/broker/bin/pip install --require-hashes --requirement /tmp/requirements.lock \
    && /opt/broker/bin/python -m compileall -q /opt/broker/lib \
    && /opt/broker/bin/pip uninstall --yes pip

FROM python:3.13-slim
# The HTTP client verifies against the system's certificates. The newest are wanted, so their version is not pinned.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin broker
COPY --from=build /opt/broker /opt/broker
WORKDIR /srv/broker
COPY migrations ./migrations
COPY app ./app
RUN python -m compileall -q app migrations \
    && printf '#!/bin/sh\nexec python -m app "$@"\n' > /usr/local/bin/broker && chmod 755 /usr/local/bin/broker
LABEL org.opencontainers.image.title="Connect Broker" \
    org.opencontainers.image.description="Hands out StackOne connect-session tokens and knows whose linked account is whose" \
    org.opencontainers.image.source="https://github.com/connect-broker/connect-broker" \
    org.opencontainers.image.licenses="MIT"
ENV PATH=/opt/broker/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    BROKER_HTTP__HOST=0.0.0.0 BROKER_METRICS__HOST=0.0.0.0
USER 10001
EXPOSE 8000 9464
# Follows BROKER_HTTP__PORT, and works on a read-only file system as well.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["python", "-m", "app", "health"]
# Exec form, so that SIGTERM reaches the broker and running requests finish.
ENTRYPOINT ["python", "-m", "app"]
CMD ["serve"]
