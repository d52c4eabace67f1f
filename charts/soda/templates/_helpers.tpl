{{- define "soda.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "soda.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "soda.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Objects without a namespace carry the release's, so that two releases of one name do not meet. */}}
{{- define "soda.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "soda.fullname" .) -}}
{{- end -}}

{{/* These never change: a Deployment's selector cannot. */}}
{{- define "soda.selector" -}}
app.kubernetes.io/name: {{ include "soda.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "soda.labels" -}}
{{ include "soda.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "soda.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "soda.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* In: the root as `root`, an image as `image` with repository, tag and digest. A digest wins. */}}
{{- define "soda.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (coalesce .image.tag .root.Values.image.tag .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* SODA_IMAGES: every name of the operator's table of images. */}}
{{- define "soda.images" -}}
{{- $found := dict -}}
{{- range $name, $image := .Values.images -}}
{{- $_ := set $found $name (include "soda.image" (dict "root" $ "image" $image)) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* SODA_STORAGE: a spec.storage block of what was given; empty when no url was. */}}
{{- define "soda.storage" -}}
{{- $given := .Values.storage -}}
{{- if $given.url -}}
{{- $found := dict "url" $given.url -}}
{{- range $key := list "endpoint" "region" -}}
{{- with get $given $key }}{{ $_ := set $found $key . }}{{ end -}}
{{- end -}}
{{- if kindIs "bool" $given.pathStyle }}{{ $_ := set $found "pathStyle" $given.pathStyle }}{{ end -}}
{{- range $key := list "secretRef" "caSecretRef" -}}
{{- $ref := get $given $key | default dict -}}
{{- with $ref.name }}{{ $_ := set $found $key (dict "name" .) }}{{ end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
{{- end -}}

{{/* What Pod Security `restricted` asks for, and a read-only root. */}}
{{- define "soda.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "soda.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
