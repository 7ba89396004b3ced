{{/* What the broker's pods and the migration's have in common. */}}
{{- define "broker.name" -}}
{{- printf "%s" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "broker.labels" -}}
app.kubernetes.io/name: connect-broker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "broker.metadata" -}}
{{ include "broker.labels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "broker.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "broker.pod" -}}
automountServiceAccountToken: false
# A Service called "broker" would set BROKER_PORT and the like.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: secrets
    secret: {secretName: {{ .Values.secretName | quote }}, defaultMode: 288}
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- end -}}

{{- define "broker.container" -}}
image: {{ include "broker.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: BROKER_SECRETS_DIR, value: /etc/connect-broker/secrets}
  - {name: BROKER_HTTP__DRAIN_SECONDS, value: {{ .Values.drainSeconds | quote }}}
  - {name: BROKER_HTTP__SHUTDOWN_SECONDS, value: {{ .Values.shutdownSeconds | quote }}}
{{- range $name, $value := .Values.settings }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
volumeMounts:
  - {name: secrets, mountPath: /etc/connect-broker/secrets, readOnly: true}
  - {name: tmp, mountPath: /tmp}
{{- end -}}
