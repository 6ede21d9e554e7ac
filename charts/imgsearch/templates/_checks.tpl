{{- /* Checks of combinations of values, which the schema cannot check. Each error is one sentence. */}}
{{- define "imgsearch.checks" -}}
{{- $values := .Values }}

{{- if gt (len .Release.Name) 40 }}
{{- fail (printf "the release name %q is too long: use at most 40 characters, so that the names of its Jobs fit into a label" .Release.Name) }}
{{- end }}

{{- with $values.storage }}
{{- if and .uri .claim.existingClaim }}
{{- fail "storage.uri and storage.claim.existingClaim are both set: choose the bucket or the claim" }}
{{- end }}
{{- range $name, $_ := .env }}
{{- include "imgsearch.checks.variable" (list (printf "storage.env.%s" $name) (dict "name" $name) "set storage.existingSecret to its name") }}
{{- end }}
{{- if and .workloadIdentity.annotations $values.existingServiceAccounts.worker }}
{{- fail "storage.workloadIdentity.annotations and existingServiceAccounts.worker are both set: put the annotations on your ServiceAccount" }}
{{- end }}
{{- end }}

{{- range include "imgsearch.outbound.ports" . | fromYamlArray }}
{{- if or (lt . 1.0) (gt . 65535.0) }}
{{- fail (printf "proxy: the port %.0f is not between 1 and 65535" .) }}
{{- end }}
{{- end }}

{{- if and $values.caBundle.existingConfigMap $values.caBundle.existingSecret }}
{{- fail "caBundle.existingConfigMap and caBundle.existingSecret are both set: choose one" }}
{{- end }}

{{- include "imgsearch.checks.labels" (list "commonLabels" $values.commonLabels) }}
{{- include "imgsearch.checks.labels" (list "storage.workloadIdentity.podLabels" $values.storage.workloadIdentity.podLabels) }}
{{- include "imgsearch.checks.labels" (list "monitoring.labels" $values.monitoring.labels) }}
{{- include "imgsearch.checks.labels" (list "monitoring.dashboardLabels" $values.monitoring.dashboardLabels) }}
{{- range $component := list "chroma" "searcher" "plan" "embed" "ingest" "evaluate" "controller" "test" }}
{{- with index $values $component }}
{{- include "imgsearch.checks.labels" (list (printf "%s.podLabels" $component) .podLabels) }}
{{- range .extraEnv }}
{{- $path := printf "%s.extraEnv: %s" $component .name }}
{{- include "imgsearch.checks.variable" (list $path . "name it in valueFrom") }}
{{- if and .value .valueFrom }}
{{- fail (printf "%s: value and valueFrom are both set: choose one" $path) }}
{{- end }}
{{- end }}
{{- range .extraVolumes }}
{{- if regexMatch "^(tmp|storage|models|data|ca-bundle|source-.*)$" .name }}
{{- fail (printf "%s.extraVolumes: the chart uses the name %s; choose another name" $component .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- $names := list }}
{{- range $values.sources }}
{{- if ne 1 (len (pick . "existingClaim" "nfs" "csi" "hostPath")) }}
{{- fail (printf "sources: %q must have exactly one of existingClaim, nfs, csi and hostPath" .name) }}
{{- end }}
{{- if has .name $names }}
{{- fail (printf "sources: two have the name %q, and both would be mounted at /sources/%s" .name .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}

{{- with $values.searcher }}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) }}
{{- fail "searcher.autoscaling.minReplicas is larger than searcher.autoscaling.maxReplicas" }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.host) }}
{{- fail "searcher.ingress.enabled needs searcher.ingress.host: without it, the Ingress would answer for every host" }}
{{- end }}
{{- with .strategy.rollingUpdate }}
{{- if and (has (toString .maxUnavailable) (list "0" "0%")) (has (toString .maxSurge) (list "0" "0%")) }}
{{- fail "searcher.strategy.rollingUpdate: maxUnavailable and maxSurge are both 0, so a rollout could replace no pod" }}
{{- end }}
{{- end }}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) }}
{{- fail "searcher.httpRoute.enabled needs searcher.httpRoute.parentRefs: the Gateway that the route belongs to" }}
{{- end }}
{{- end }}

{{- with $values.embed }}
{{- if gt (int .gpu.count) 1 }}
{{- fail (printf "embed.gpu.count is %d, but a pod uses one GPU: set embed.gpu.count to 1, and run more pods at a time with pipeline.parallelism" (int .gpu.count)) }}
{{- end }}
{{- range $name, $_ := merge (dict) (.resources.limits | default dict) (.resources.requests | default dict) }}
{{- if and (contains "/" $name) (not (contains "kubernetes.io/" $name)) }}
{{- fail (printf "embed.resources has %s: set embed.gpu.count to 1 and embed.gpu.resourceName to the name of the GPU instead, so that its hours and tolerations are known" $name) }}
{{- end }}
{{- end }}
{{- if and .gpu.accelerators (not .gpu.count) }}
{{- fail "embed.gpu.accelerators has GPUs, but embed.gpu.count is 0: set embed.gpu.count to 1" }}
{{- end }}
{{- if and .affinity.nodeAffinity (or .gpu.accelerators .spot) }}
{{- fail "embed.affinity.nodeAffinity cannot be combined with embed.gpu.accelerators or embed.spot: put all rules into embed.affinity" }}
{{- end }}
{{- end }}

{{- range $values.reindex.extraArgs }}
{{- if and $values.pipeline.queue (hasPrefix "--max-parallelism" .) }}
{{- fail "reindex.extraArgs has --max-parallelism, which cannot be used with pipeline.queue: Kueue stops all pods of a Job whose number of pods changes; use --parallelism" }}
{{- end }}
{{- end }}

{{- if and $values.reindex.enabled (not $values.reindex.source) }}
{{- fail "reindex.enabled needs reindex.source: the source for `controller run-pipeline`" }}
{{- end }}
{{- end }}

{{- /* Refuses a variable that is a setting, and a secret in the values: (list PATH VARIABLE SOLUTION). */}}
{{- define "imgsearch.checks.variable" -}}
{{- $variable := index . 1 }}
{{- if hasPrefix "IMGSEARCH_" $variable.name }}
{{- fail (printf "%s: use the chart value of this setting instead (docs/settings.md)" (index . 0)) }}
{{- end }}
{{- if and (not $variable.valueFrom) (not (hasPrefix "HF_HUB_" $variable.name)) (regexMatch "SECRET|PASSWORD|TOKEN$|ACCOUNT_KEY|SAS_KEY" $variable.name) }}
{{- fail (printf "%s: do not put a secret into the values; put it into a Secret and %s" (index . 0) (index . 2)) }}
{{- end }}
{{- end }}

{{- /* Refuses labels that the chart or the controller sets: (list PATH LABELS). */}}
{{- define "imgsearch.checks.labels" -}}
{{- range $name, $_ := index . 1 }}
{{- if regexMatch "^(app.kubernetes.io/(name|instance|component|version|managed-by)|helm.sh/chart|imgsearch.dev/.*)$" $name }}
{{- fail (printf "%s: the chart sets the label %s; choose another name" (index $ 0) $name) }}
{{- end }}
{{- end }}
{{- end }}
