{{- /* What the schema cannot say: values that are right by themselves and wrong together. One sentence each. */}}
{{- define "imgsearch.checks" -}}
{{- $values := .Values }}

{{- if gt (len .Release.Name) 40 }}
{{- fail (printf "the release name %q is too long: with 40 characters or fewer, the names of its Jobs fit into a label" .Release.Name) }}
{{- end }}

{{- with $values.storage }}
{{- if and .uri .claim.existingClaim }}
{{- fail "storage.uri and storage.claim.existingClaim are both set: choose the bucket or the claim" }}
{{- end }}
{{- range $name, $_ := .env }}
{{- if hasPrefix "IMGSEARCH_" $name }}
{{- fail (printf "storage.env.%s: settings have values of their own, see docs/settings.md" $name) }}
{{- end }}
{{- if regexMatch "SECRET|PASSWORD|TOKEN$|ACCOUNT_KEY|SAS_KEY" $name }}
{{- fail (printf "storage.env.%s: a secret does not belong into the values; put it into a Secret and name that in storage.existingSecret" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- $names := list }}
{{- range $values.sources }}
{{- if has .name $names }}
{{- fail (printf "sources: two are called %q, and would both be mounted at /sources/%s" .name .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}

{{- with $values.searcher }}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) }}
{{- fail "searcher.autoscaling.minReplicas is more than searcher.autoscaling.maxReplicas" }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.host) }}
{{- fail "searcher.ingress.enabled needs searcher.ingress.host: without one, the Ingress would answer for every host" }}
{{- end }}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) }}
{{- fail "searcher.httpRoute.enabled needs searcher.httpRoute.parentRefs: the Gateway that the route belongs to" }}
{{- end }}
{{- end }}

{{- with $values.embed }}
{{- if and .gpu.accelerators (not .gpu.count) }}
{{- fail "embed.gpu.accelerators names GPUs, but embed.gpu.count asks for none: set it to 1" }}
{{- end }}
{{- if and .affinity.nodeAffinity (or .gpu.accelerators .spot) }}
{{- fail "embed.affinity.nodeAffinity cannot be combined with embed.gpu.accelerators or embed.spot: say all of it in embed.affinity" }}
{{- end }}
{{- end }}

{{- if and $values.reindex.enabled (not $values.reindex.source) }}
{{- fail "reindex.enabled needs reindex.source: what `controller run-pipeline` is to index" }}
{{- end }}
{{- end }}
