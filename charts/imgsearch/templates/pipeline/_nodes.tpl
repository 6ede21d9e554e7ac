{{- /* The node rules of embed pods: number and names of GPUs, use of spot nodes. */}}

{{- /* The values of `embed`, with `gpu` and `spot` put into resources, tolerations and affinity: (ROOT). */}}
{{- define "imgsearch.embed.values" -}}
{{- $embed := .Values.embed }}
{{- $gpu := $embed.gpu }}
{{- $tolerations := $embed.tolerations }}
{{- $required := list }}
{{- $preferred := list }}
{{- $accelerators := list }}
{{- $limits := dict }}

{{- if $gpu.count }}
{{- $_ := set $limits $gpu.resourceName (int $gpu.count) }}
{{- /* A GPU node is tainted with the name of its resource or with the vendor's `gpu`: a node of `nvidia.com/mig-1g.5gb`
has the taint `nvidia.com/gpu`. */}}
{{- range list $gpu.resourceName (printf "%s/gpu" (splitList "/" $gpu.resourceName | first)) | uniq }}
{{- $tolerations = append $tolerations (dict "key" . "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- end }}

{{- with $gpu.accelerators }}
{{- $accelerators = list (dict "key" $gpu.acceleratorLabel "operator" "In" "values" .) }}
{{- end }}

{{- /* Terms are alternatives; all expressions of a term must match. A spot node has one of the labels, another node has
none of them. */}}
{{- $others := $accelerators }}
{{- range include "imgsearch.spotNodes" . | fromYamlArray }}
{{- $spot := dict "key" .key "operator" "In" "values" (list .value) }}
{{- if eq $embed.spot "require" }}
{{- $required = append $required (dict "matchExpressions" (prepend $accelerators $spot)) }}
{{- else if eq $embed.spot "prefer" }}
{{- $preferred = append $preferred (dict "weight" 100 "preference" (dict "matchExpressions" (list $spot))) }}
{{- else if eq $embed.spot "avoid" }}
{{- $others = append $others (dict "key" .key "operator" "NotIn" "values" (list .value)) }}
{{- end }}
{{- if has $embed.spot (list "require" "prefer") }}
{{- $tolerations = append $tolerations (dict "key" .key "operator" "Equal" "value" .value "effect" "NoSchedule") }}
{{- end }}
{{- end }}
{{- if and $others (not $required) }}
{{- $required = list (dict "matchExpressions" $others) }}
{{- end }}

{{- $node := dict }}
{{- with $required }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" .) }}
{{- end }}
{{- with $preferred }}
{{- $_ := set $node "preferredDuringSchedulingIgnoredDuringExecution" . }}
{{- end }}
{{- $affinity := dict }}
{{- with $node }}
{{- $affinity = dict "nodeAffinity" . }}
{{- end }}

{{- merge (dict "tolerations" $tolerations "affinity" $affinity "resources" (dict "limits" $limits)) $embed | toYaml }}
{{- end }}

{{- /* Labels (and some taints) of spot nodes: GKE, EKS, Karpenter, AKS; no argument. */}}
{{- define "imgsearch.spotNodes" -}}
- {key: cloud.google.com/gke-spot, value: "true"}
- {key: eks.amazonaws.com/capacityType, value: SPOT}
- {key: karpenter.sh/capacity-type, value: spot}
- {key: kubernetes.azure.com/scalesetpriority, value: spot}
{{- end }}
