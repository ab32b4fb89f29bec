{{/* Parts of several templates. Where a part needs more than the root, it takes a dict with `root`. */}}

{{- define "penchant.labels" -}}
app.kubernetes.io/name: penchant
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "penchant.selector" -}}
app.kubernetes.io/name: penchant
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What moves pods to new settings. */}}
{{- define "penchant.annotations" -}}
penchant/settings: {{ include (print $.Template.BasePath "/settings.yaml") . | sha256sum }}
{{- end }}

{{- define "penchant.image" -}}
{{- $images := .root.Values.images -}}
{{- with $images.registry }}{{ . }}/{{ end }}{{ index $images .name }}:{{ $images.tag }}
{{- end }}

{{- define "penchant.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "penchant.containerSecurity" -}}
allowPrivilegeEscalation: false
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What is the same in the description of every pod. */}}
{{- define "penchant.pod" -}}
enableServiceLinks: false
securityContext:
  {{- include "penchant.podSecurity" . | nindent 2 }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "penchant.placed" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "penchant.container" -}}
image: {{ include "penchant.image" . | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
securityContext:
  {{- include "penchant.containerSecurity" . | nindent 2 }}
{{- end }}

{{- define "penchant.scratch" -}}
- name: scratch
  emptyDir: {sizeLimit: {{ .Values.scratch }}}
{{- end }}

{{/* Settings, and the way to the object store. */}}
{{- define "penchant.envFrom" -}}
- configMapRef: {name: {{ .Release.Name }}-settings}
{{- with .Values.store.secret }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- with .Values.settingsSecret }}
- secretRef: {name: {{ . }}, optional: true}
{{- end }}
{{- end }}

{{/* The logins of clients; the operator gives Ray's token to Ray's own pods. */}}
{{- define "penchant.registryEnv" -}}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom: {secretKeyRef: {name: {{ .Values.mlflow.secret }}, key: username}}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.mlflow.secret }}, key: password}}
{{- end }}

{{- define "penchant.clientEnv" -}}
{{ include "penchant.registryEnv" . }}
- name: RAY_AUTH_MODE
  value: token
- name: RAY_AUTH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.ray.secret }}, key: auth_token}}
{{- end }}

{{- define "penchant.mlflowUri" -}}
{{- if .Values.mlflow.enabled }}http://{{ .Release.Name }}-mlflow:5000{{ else }}{{ required "mlflow.uri: the address of the server, where mlflow.enabled is false" .Values.mlflow.uri }}{{ end }}
{{- end }}

{{- define "penchant.airflowApi" -}}
http://{{ .Release.Name }}-airflow-api-server:8080
{{- end }}

{{/* The names of a service, and more of them, without repetition. */}}
{{- define "penchant.hosts" -}}
{{- $in := printf "%s.%s" .service .root.Release.Namespace -}}
{{- concat (list "localhost" "127.0.0.1" .service $in (print $in ".svc") (print $in ".svc.cluster.local")) .more | uniq | toJson -}}
{{- end }}
