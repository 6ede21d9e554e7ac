{{- /*
Parts that several objects share. The name of each object begins with the name of the release. The argument of each named
template is in its comment: the root context (ROOT), a list, or none.
*/}}

{{- /* Name, namespace and labels of an object: (list ROOT NAME LABELS). NAME is the part of its name after the
release. LABELS are more labels, and may be missing. */}}
{{- define "imgsearch.metadata" -}}
{{- $root := index . 0 -}}
name: {{ $root.Release.Name }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "imgsearch.labels" . | nindent 2 }}
{{- end }}

{{- /* Labels of every object: (list ROOT COMPONENT LABELS). LABELS replace `commonLabels`. */}}
{{- define "imgsearch.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{ include "imgsearch.selectorLabels" . }}
{{- with include "imgsearch.merged" (list $root.Values.commonLabels (first (slice . 2))) }}
{{ . }}
{{- end }}
{{- end }}

{{- /* Several maps as one, in which a later map replaces the values of an earlier one: (LIST). Unlike `merge`, it also
does so with an empty value. Empty without a value. */}}
{{- define "imgsearch.merged" -}}
{{- $merged := dict }}
{{- range . }}
{{- range $name, $value := . }}
{{- $_ := set $merged $name $value }}
{{- end }}
{{- end }}
{{- with $merged }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of pods, and selectors of pods: (list ROOT COMPONENT). They have no version, because an upgrade must not
restart unchanged pods. */}}
{{- define "imgsearch.selectorLabels" -}}
app.kubernetes.io/name: imgsearch
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* A number of the values as the value of an environment variable, "" for null: (VALUE). It uses toJson,
because Helm reads 20000000 as a float and would print 2e+07. */}}
{{- define "imgsearch.number" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ kindIs "invalid" . | ternary "" (toJson .) | quote }}{{ end }}
{{- end }}

{{- /* Labels and annotations of a pod: (list ROOT COMPONENT LABELS). LABELS are more labels, and may be missing. */}}
{{- define "imgsearch.podMetadata" -}}
{{- with (index (index . 0).Values (index . 1)).podAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
labels:
  {{- include "imgsearch.podLabels" . | nindent 2 }}
{{- end }}

{{- /* Labels of a pod: (list ROOT COMPONENT LABELS), as above. */}}
{{- define "imgsearch.podLabels" -}}
{{- $values := (index . 0).Values -}}
{{- include "imgsearch.selectorLabels" . }}
{{- with include "imgsearch.merged" (list $values.commonLabels (first (slice . 2)) (index $values (index . 1)).podLabels) }}
{{ . }}
{{- end }}
{{- end }}

{{- /* Labels and annotations of a pod that works on runs: (list ROOT COMPONENT). */}}
{{- define "imgsearch.podMetadata.worker" -}}
{{- include "imgsearch.podMetadata" (append . (index . 0).Values.storage.workloadIdentity.podLabels) }}
{{- end }}

{{- /* Name of a ServiceAccount: (list ROOT ACCOUNT). ACCOUNT is a key of `existingServiceAccounts`. */}}
{{- define "imgsearch.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- index $root.Values.existingServiceAccounts (index . 1) | default (printf "%s-%s" $root.Release.Name (index . 1)) }}
{{- end }}

{{- /* The first fields of a pod's spec: (list ROOT VALUES ACCOUNT). VALUES has its node rules, ACCOUNT is the
ServiceAccount. Together with `imgsearch.container`, the pod passes Pod Security `restricted`. Service links are
off: for a release named imgsearch, they would set variables such as IMGSEARCH_SEARCHER_PORT, which is not a
setting. */}}
{{- define "imgsearch.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
serviceAccountName: {{ include "imgsearch.serviceAccountName" (list $root (index . 2)) | quote }}
automountServiceAccountToken: {{ eq (index . 2) "controller" }}
enableServiceLinks: false
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Image and security context of a container: (list ROOT IMAGE). IMAGE is a key of `images`. */}}
{{- define "imgsearch.container" -}}
{{- $root := index . 0 -}}
{{- with index $root.Values.images (index . 1) -}}
image: "{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $root.Chart.AppVersion }}{{ end }}"
imagePullPolicy: {{ .pullPolicy }}
{{- end }}
securityContext:
  {{- toYaml $root.Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{- /* Variables of a container: (list ROOT COMPONENT PARTS). PARTS has the P of each named template `imgsearch.P.env`.
A name occurs once, with its last value, because `kubectl apply` cannot compare a list in which a name occurs twice. An
empty value has no field, because the API server stores none. */}}
{{- define "imgsearch.env" -}}
{{- $root := index . 0 }}
{{- $all := list }}
{{- range prepend (index . 2) "outbound" }}
{{- $all = concat $all (include (printf "imgsearch.%s.env" .) $root | fromYamlArray) }}
{{- end }}
{{- $all = concat $all ((index $root.Values (index . 1)).extraEnv | default list) }}
{{- $last := dict }}
{{- range $position, $variable := $all }}
{{- $_ := set $last $variable.name $position }}
{{- end }}
{{- $env := list }}
{{- range $position, $variable := $all }}
{{- if eq $position (get $last $variable.name) }}
{{- $env = append $env ($variable.value | empty | ternary (omit $variable "value") $variable) }}
{{- end }}
{{- end }}
{{- toYaml $env }}
{{- end }}

{{- /* Variables of a program; no argument. The root is read-only, so HOME is /tmp. */}}
{{- define "imgsearch.program.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: HOME
  value: /tmp
- name: TMPDIR
  value: /tmp
{{- end }}

{{- /* The variable with the metrics port of the programs in Jobs; no argument. */}}
{{- define "imgsearch.metrics.env" -}}
- name: IMGSEARCH_METRICS_PORT
  value: "9090"
{{- end }}

{{- /* The metrics port of the container; no argument. */}}
{{- define "imgsearch.metrics.ports" -}}
ports:
  - name: metrics
    containerPort: 9090
{{- end }}

{{- /* URI of the storage of runs: (ROOT). */}}
{{- define "imgsearch.storageUri" -}}
{{- .Values.storage.uri | default "file:///storage" }}
{{- end }}

{{- /* URL of the vector store: (ROOT). */}}
{{- define "imgsearch.storeUrl" -}}
{{- .Values.store.url | default (printf "chroma+http://%s-chroma:8000" .Release.Name) }}
{{- end }}

{{- /* Variables of a container that works on runs: (ROOT). */}}
{{- define "imgsearch.worker.env" -}}
{{- range $name, $value := .Values.storage.env }}
- name: {{ $name | quote }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}

{{- /* The keys of the storage's Secret as variables: (ROOT). Empty without a Secret. */}}
{{- define "imgsearch.worker.envFrom" -}}
{{- with .Values.storage.existingSecret -}}
envFrom:
  - secretRef:
      name: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Mounts of the container of a program: (list ROOT COMPONENT). The API server stores no `readOnly: false`. */}}
{{- define "imgsearch.program.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- include "imgsearch.outbound.mounts" (index . 0) }}
{{- range (index (index . 0).Values (index . 1)).extraVolumeMounts }}
- {{ .readOnly | empty | ternary (omit . "readOnly") . | toYaml | nindent 2 | trim }}
{{- end }}
{{- end }}

{{- /* Volumes of the pod of a program: (list ROOT COMPONENT). */}}
{{- define "imgsearch.program.volumes" -}}
- name: tmp
  emptyDir: {}
{{- include "imgsearch.outbound.volumes" (index . 0) }}
{{- with (index (index . 0).Values (index . 1)).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Mounts of a container that works on runs: (list ROOT COMPONENT WRITES). WRITES is true if the container writes to
the storage. */}}
{{- define "imgsearch.worker.mounts" -}}
{{- include "imgsearch.program.mounts" . }}
{{- if not (index . 0).Values.storage.uri }}
- name: storage
  mountPath: /storage
  {{- if not (index . 2) }}
  readOnly: true
  {{- end }}
{{- end }}
{{- end }}

{{- /* Volumes of a pod that works on runs: (list ROOT COMPONENT). */}}
{{- define "imgsearch.worker.volumes" -}}
{{- include "imgsearch.program.volumes" . }}
{{- with index . 0 }}
{{- if not .Values.storage.uri }}
- name: storage
  persistentVolumeClaim:
    claimName: {{ include "imgsearch.claimName" (list . "storage" .Values.storage.claim) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Variables of a container that loads models and reads images: (ROOT). */}}
{{- define "imgsearch.images.env" -}}
- name: HF_HOME
  value: /models/hub
{{- with .Values.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: HF_TOKEN
{{- end }}
{{- end }}

{{- /* Mounts of models and sources: (ROOT). */}}
{{- define "imgsearch.images.mounts" -}}
- name: models
  mountPath: /models
{{- range .Values.sources }}
- name: source-{{ .name }}
  mountPath: /sources/{{ .name }}
  readOnly: true
  {{- with .subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Volumes of models and sources: (ROOT). */}}
{{- define "imgsearch.images.volumes" -}}
- name: models
  {{- if .Values.models.claim.enabled }}
  persistentVolumeClaim:
    claimName: {{ include "imgsearch.claimName" (list . "models" .Values.models.claim) | quote }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- /* The volume must be read-only too, not only the mount: otherwise fsGroup would change the owner of its files. A
hostPath has no such field. */}}
{{- range .Values.sources }}
- name: source-{{ .name }}
  {{- with .existingClaim }}
  persistentVolumeClaim:
    claimName: {{ . | quote }}
    readOnly: true
  {{- end }}
  {{- range $kind, $volume := pick . "nfs" "csi" }}
  {{ $kind }}:
    {{- merge (dict "readOnly" true) $volume | toYaml | nindent 4 }}
  {{- end }}
  {{- with .hostPath }}
  hostPath:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Name of a claim: (list ROOT NAME CLAIM). */}}
{{- define "imgsearch.claimName" -}}
{{- (index . 2).existingClaim | default (printf "%s-%s" (index . 0).Release.Name (index . 1)) }}
{{- end }}

{{- /* A claim that `helm uninstall` keeps: (list ROOT NAME CLAIM). Its labels and annotations are kept too, so
that a new release of the same name can use it. */}}
{{- define "imgsearch.claim" -}}
{{- with index . 2 -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "imgsearch.metadata" (initial $) | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes:
    {{- toYaml .accessModes | nindent 4 }}
  {{- with .storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ include "imgsearch.quantity" .size | quote }}
{{- end }}
{{- end }}
