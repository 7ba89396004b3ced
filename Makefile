# One name per thing a developer does. Everything runs in .venv, which `setup` makes from the hashed lock file.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
NODE_MINIMUM := 20.19

.PHONY: help setup demo dev page test test-outside ha soak steady pictures mutants check docs site sbom image-check migration format lock bench clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Install everything into .venv (needs Python >= 3.11 and its venv module)

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python >= 3.11 is needed; say which one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup page  ## Start everything on this machine: sandbox, identity provider, page and the real broker
	@exec $(BIN)/broker-demo $(ARGS)

dev: setup page  ## The demo with hot reload, on the page and on packages/connect (needs Node)
	@exec node demo/dev.mjs $(BIN)/broker-demo $(ARGS)

# The page is built where Node is recent enough; everything else works without it.
page:
	@if [ ! -f demo/package.json ]; then exit 0; fi; \
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
		echo "no Node.js: the demo page is left out (it needs Node >= $(NODE_MINIMUM)); everything else works" >&2; exit 0; fi; \
	if ! node -e 'const [a,b]=process.versions.node.split(".").map(Number); process.exit(a>20||(a===20&&b>=19)?0:1)'; then \
		echo "Node $$(node --version) is too old for the demo page (it needs >= $(NODE_MINIMUM)); everything else works" >&2; exit 0; fi; \
	if [ ! -f demo/dist/index.html ] || [ -n "$$(find packages/connect/src packages/connect/scripts demo/src demo/public package-lock.json demo/vite.config.ts demo/index.html -newer demo/dist/index.html -print -quit 2>/dev/null)" ]; then \
		echo "building the demo page ..."; \
		(npm ci --no-audit --no-fund --loglevel=error && npm run build --silent) \
			|| echo "the demo page could not be built; everything else works" >&2; \
	fi

# One part of the tests (ARGS) needs no page; the browser's tests build it themselves.
test: setup $(if $(ARGS),,page)  ## Run every test that needs nothing but this repository; ARGS='tests/requests -k webhook' for less
ifdef ARGS
	@$(PYTEST) $(ARGS)
else
	@$(PYTEST) --numprocesses=auto --dist=worksteal
	@if [ -d node_modules ] && command -v npm >/dev/null; then npm run --silent test; fi
	@$(PYTEST) tests/browser --numprocesses=auto --maxprocesses=4 --dist=worksteal
endif

test-outside: setup  ## Run the tests beside programs and packages of others (PostgreSQL, nginx, npm); they say what is missing
	@$(PYTEST) tests/neighbours tests/outside --timeout=600 $(ARGS)

ha: setup  ## Kill the database's primary under load, 20 times: nothing acknowledged is lost; says what is missing; ARGS='--kills 3'
	@$(BIN)/python -m tests.endurance.ha $(ARGS)

soak: setup  ## Half an hour in which everything around the broker goes wrong, under load; ARGS='--minutes 10 --seed 3'
	@$(BIN)/python -m tests.endurance.soak $(ARGS)

# Nothing is tried again: what fails once in many runs is a fault, of the test or of the page.
steady: setup page  ## Run the browser's tests 20 times in a row (RUNS=20), and stop at the first that fails
	@for run in $$(seq $(or $(RUNS),20)); do echo "run $$run"; \
		$(BIN)/python -m pytest tests/browser -q --numprocesses=2 --dist=worksteal $(ARGS) || { echo "run $$run failed" >&2; exit 1; }; \
	done

pictures: setup  ## Draw the pictures of docs/operations.md from a demo under load (needs Debian's prometheus)
	@$(BIN)/python -m tests.outside.watched_demo

mutants: setup  ## Break identity, connect sessions and the pure decisions in every small way, and see what no test notices; docs/mutation.md
	@$(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results

# Everything is looked at, whatever fails, and each failure comes with what fixes it.
check: setup  ## Lint, types, import contracts, migrations, docs: all that is wrong at once, and what fixes it
	@failed=""; SECONDS=0; \
	look() { what="$$1"; fix="$$2"; shift 2; "$$@" || failed="$$failed\n  $$what: $$fix"; }; \
	look "format" "make format" $(BIN)/ruff format --check .; \
	look "lint" "make format fixes some; the rest is listed above" $(BIN)/ruff check .; \
	look "types" "listed above, by file and line" $(BIN)/mypy; \
	look "imports" "move the code, or the line in pyproject.toml that names the exception" $(BIN)/lint-imports --no-logo; \
	look "documents, migrations, guards" "make docs, where a written page is old; else listed above" $(BIN)/python -m pytest -q tests/checks; \
	look "budgets" "a warm request costs more than tests/budgets/limits.py allows: take the trip out again" $(BIN)/python -m pytest -q tests/budgets; \
	if [ -d node_modules ]; then look "package and page" "make docs, where the types are old; else listed above" npm run --silent check; \
	else echo "no node_modules: the page's TypeScript is not checked (make page installs it)"; fi; \
	echo "checked in $$SECONDS s"; \
	if [ -n "$$failed" ]; then printf "\nto fix:$$failed\n" >&2; exit 1; fi

docs: setup  ## Write what comes from the code: pages of docs/, openapi.json, (with Node) the page's types; then the site
	@$(BIN)/python -m tests.checks.pages
	@$(BIN)/python -m tests.contract.page
	@if [ -d node_modules ]; then npm run --silent generate; fi
	@$(MAKE) --no-print-directory site

# In an environment of its own: nothing else needs what it is built with.
site: .venv-site/.installed  ## Build the docs as a site that can be searched, into build/site; a link that leads nowhere fails it
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --clean

.venv-site/.installed .venv-deploy/.installed: .venv-%/.installed: requirements-%.lock
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The same in an environment of its own. Renovate's and the workflows' schemas come with it, too; deploy/ is read by tests/outside.
# The version stands where hatch finds it and the bill's program does not look.
sbom: .venv-deploy/.installed  ## Write the bill of materials of what the image is made of (CycloneDX), into build/sbom.json
	@mkdir -p build
	@version="$$(sed -n 's/^__version__ = "\(.*\)"$$/\1/p' app/__init__.py)" && \
		sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > build/pyproject.toml
	@PYTHONWARNINGS=ignore .venv-deploy/bin/cyclonedx-py requirements --pyproject build/pyproject.toml --output-reproducible --output-format JSON \
		--output-file build/sbom.json requirements.lock
	@echo "build/sbom.json"

# In place of the base image, which only a registry of containers has: a Debian of the same version, with the same Python.
image-check: setup .venv-deploy/.installed  ## Build the image in a clean root and run it there (root; Debian's buildah and debootstrap); lint what builds it
	@$(BIN)/python -m pytest tests/outside/test_image.py tests/outside/test_release.py $(ARGS)

migration: setup  ## Write the next migration from the tables in app/; NAME='A note on each account'
	@test -n "$(NAME)" || { echo "say what it does: make migration NAME='A note on each account'" >&2; exit 1; }
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && export BROKER_DATABASE__URL="sqlite:///$$scratch/now.db" && \
		next=$$(printf '%04d' $$(( $$(ls migrations/versions/0*.py | wc -l) + 1 ))) && \
		$(BIN)/alembic upgrade head && \
		$(BIN)/alembic revision --autogenerate --rev-id "$$next" -m "$(NAME)" && \
		$(BIN)/ruff check --fix --quiet migrations ; $(BIN)/ruff format --quiet migrations

format: setup  ## Format the code
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: setup  ## Resolve the lock files anew (hashes, no download addresses)
	@$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate \
		--extra postgres --extra redis --extra otel pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate \
		--extra postgres --extra redis --extra otel --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	@for each in site generators backends agents deploy; do $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate \
		--group $$each -o requirements-$$each.lock; done
	@if command -v npm >/dev/null; then npm install --prefix tests/outside/generators --package-lock-only \
		--omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error; fi

# Express runs where Node.js is recent enough; what is missing is left out and said in the page.
bench: setup  ## Measure the broker beside its contenders and write docs/performance.md; ARGS='mint list', ARGS=--quick
	@if command -v npm >/dev/null && [ ! -d bench/contenders/express/node_modules ]; then \
		npm --prefix bench/contenders/express ci --no-audit --no-fund --loglevel=error \
			|| echo "Express could not be installed; it is left out" >&2; fi
	@$(BIN)/python -m bench $(ARGS)

clean:  ## Remove everything that the other targets made
	@rm -rf $(VENV) .venv-3.13 .venv-site .venv-deploy build .demo node_modules demo/node_modules demo/dist packages/connect/node_modules packages/connect/dist bench/contenders/express/node_modules test-results mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis
