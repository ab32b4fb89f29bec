{{- define "penchant.rayPod" -}}
{{- $at := dict "root" .root "component" .component "name" .image -}}
metadata:
  labels:
    {{- include "penchant.labels" $at | nindent 4 }}
spec:
  serviceAccountName: {{ .root.Release.Name }}-{{ .account }}
  terminationGracePeriodSeconds: 120
  {{- include "penchant.pod" .root | nindent 2 }}
  {{- include "penchant.placed" .size | nindent 2 }}
  containers:
    - name: ray
      {{- include "penchant.container" $at | nindent 6 }}
      envFrom:
        {{- include "penchant.envFrom" .root | nindent 8 }}
      env:
        {{- include "penchant.registryEnv" .root | nindent 8 }}
        {{- range $name, $value := .env }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      {{- if .ports }}
      ports:
        {{- range $name, $port := .ports }}
        - {name: {{ $name }}, containerPort: {{ $port }}}
        {{- end }}
      {{- end }}
      resources:
        {{- toYaml .size.resources | nindent 8 }}
      volumeMounts:
        - {name: scratch, mountPath: /scratch}
        - {name: ray, mountPath: /tmp/ray}
  volumes:
    {{- include "penchant.scratch" .root | nindent 4 }}
    - name: ray
      emptyDir: {sizeLimit: {{ .root.Values.scratch }}}
{{- end }}
