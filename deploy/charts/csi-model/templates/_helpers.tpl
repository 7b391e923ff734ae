{{- define "csi-model.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* What namespaced objects' names begin with: the release's name, with the chart's where it does not say it already. */}}
{{- define "csi-model.fullname" -}}
{{- $name := include "csi-model.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The part of the labels that selectors use; it never changes for a release. Takes a dict of root and component. */}}
{{- define "csi-model.selector" -}}
app.kubernetes.io/name: {{ include "csi-model.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "csi-model.labels" -}}
{{ include "csi-model.selector" . }}
app.kubernetes.io/part-of: csi-model
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Without the chart's version: a chart that changes nothing else must not roll the pods. */}}
{{- define "csi-model.podLabels" -}}
{{ include "csi-model.selector" . }}
app.kubernetes.io/part-of: csi-model
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "csi-model.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "csi-model.stateDir" -}}
{{- if .Values.stateDir -}}
{{ .Values.stateDir }}
{{- else if eq .Values.driverName "csi-model.dev" -}}
/var/lib/csi-model
{{- else -}}
/var/lib/{{ .Values.driverName }}
{{- end -}}
{{- end -}}

{{- define "csi-model.pluginDir" -}}
{{ .Values.kubeletRoot }}/plugins/{{ .Values.driverName }}
{{- end -}}

{{/* The driver's configuration file: the admin's, with what the chart itself decides. */}}
{{- define "csi-model.config" -}}
{{- $own := dict "csi" (dict "driverName" .Values.driverName "kubeletRoot" .Values.kubeletRoot) -}}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml -}}
{{- end -}}

{{/* Tests run where the driver does, in its own image: no other is needed. */}}
{{- define "csi-model.testPlace" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
enableServiceLinks: false
{{- with .Values.node.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.node.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "csi-model.testContainer" -}}
image: {{ include "csi-model.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/opt/csi-model/bin/python]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* What the driver may do with the API server, by its configuration: "true", or nothing. */}}
{{- define "csi-model.events" -}}
{{- if ne (dig "kubernetes" "events" true .Values.config) false }}true{{ end -}}
{{- end -}}

{{- define "csi-model.startupTaint" -}}
{{- if ne (dig "kubernetes" "startupTaint" true .Values.config) false }}true{{ end -}}
{{- end -}}

{{- define "csi-model.kubernetes" -}}
{{- if or (include "csi-model.events" .) (include "csi-model.startupTaint" .) }}true{{ end -}}
{{- end -}}
