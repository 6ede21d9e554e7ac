{{- /* Rules of several NetworkPolicies. Rules for the internet have no peers, because a policy cannot name hosts. */}}

{{- /* The pods of a policy: (list ROOT COMPONENT). The policy covers both directions and refuses all other
traffic, also if it has no rules for a direction: the API server stores no empty list. */}}
{{- define "imgsearch.network.subject" -}}
podSelector:
  matchLabels:
    {{- include "imgsearch.selectorLabels" . | nindent 4 }}
policyTypes: [Ingress, Egress]
{{- end }}

{{- /* The pods of one component as a peer: (list ROOT COMPONENT). */}}
{{- define "imgsearch.network.peer" -}}
- podSelector:
    matchLabels:
      {{- include "imgsearch.selectorLabels" . | nindent 6 }}
{{- end }}

{{- /* To the cluster's DNS: (ROOT). It allows any address, because the DNS cache of a node is not a pod. */}}
{{- define "imgsearch.network.toDns" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- /* To these ports of any address: (LIST OF PORTS). */}}
{{- define "imgsearch.network.toPorts" -}}
- ports:
    {{- range toStrings . | uniq }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- /* To buckets, hubs and image hosts, also through the proxy: (ROOT). */}}
{{- define "imgsearch.network.toData" -}}
{{- with concat .Values.networkPolicy.egressPorts (include "imgsearch.outbound.ports" . | fromYamlArray) }}
{{- include "imgsearch.network.toPorts" . }}
{{- end }}
{{- end }}

{{- /* The values' extraEgress: (ROOT). Each port has the default protocol, because the API server adds it. */}}
{{- define "imgsearch.network.extra" -}}
{{- with .Values.networkPolicy.extraEgress | deepCopy }}
{{- range . }}
{{- range .ports }}
{{- $_ := set . "protocol" (.protocol | default "TCP") }}
{{- end }}
{{- end }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- /* To the vector store: (ROOT). */}}
{{- define "imgsearch.network.toStore" -}}
{{- if .Values.store.url }}
{{- $default := hasPrefix "chroma+https" .Values.store.url | ternary "443" "8000" }}
{{- $port := regexFind ":[0-9]+/?$" .Values.store.url | trimAll ":/" | default $default }}
{{- include "imgsearch.network.toPorts" (prepend (include "imgsearch.outbound.ports" . | fromYamlArray) $port) }}
{{- else -}}
- to:
    {{- include "imgsearch.network.peer" (list . "chroma") | nindent 4 }}
  ports:
    - port: 8000
      protocol: TCP
{{- end }}
{{- end }}

{{- /* From Prometheus to the metrics port of Jobs: (ROOT). */}}
{{- define "imgsearch.network.fromScraper" -}}
- from:
    {{- .Values.networkPolicy.metricsFrom | default (list (dict "namespaceSelector" dict)) | toYaml | nindent 4 }}
  ports:
    - port: 9090
      protocol: TCP
{{- end }}
