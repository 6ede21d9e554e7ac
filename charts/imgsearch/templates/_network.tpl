{{- /* Rules that several NetworkPolicies have. A rule without peers is for everybody: a policy cannot name hosts. */}}

{{- /* Which pods a policy is for: (list ROOT COMPONENT). Both directions: what is not named in it is refused. */}}
{{- define "imgsearch.network.subject" -}}
podSelector:
  matchLabels:
    {{- include "imgsearch.selectorLabels" . | nindent 4 }}
policyTypes: [Ingress, Egress]
{{- end }}

{{- /* Pods of one component as a peer: (list ROOT COMPONENT). */}}
{{- define "imgsearch.network.peer" -}}
- podSelector:
    matchLabels:
      {{- include "imgsearch.selectorLabels" . | nindent 6 }}
{{- end }}

{{- /* To the cluster's DNS: (ROOT). Anywhere, since a node's cache of it is no pod. */}}
{{- define "imgsearch.network.toDns" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- /* To some ports of anybody: (LIST OF PORTS). */}}
{{- define "imgsearch.network.toPorts" -}}
- ports:
    {{- range . }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end }}

{{- /* To buckets, hubs and image hosts, and where the values say: (ROOT). */}}
{{- define "imgsearch.network.toData" -}}
{{- with .Values.networkPolicy.egressPorts }}
{{- include "imgsearch.network.toPorts" . }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* To the vector store: (ROOT). */}}
{{- define "imgsearch.network.toStore" -}}
{{- if .Values.store.url }}
{{- $default := hasPrefix "chroma+https" .Values.store.url | ternary "443" "8000" }}
{{- $port := regexFind ":[0-9]+/?$" .Values.store.url | trimAll ":/" | default $default }}
{{- include "imgsearch.network.toPorts" (list $port) }}
{{- else -}}
- to:
    {{- include "imgsearch.network.peer" (list . "chroma") | nindent 4 }}
  ports:
    - port: 8000
      protocol: TCP
{{- end }}
{{- end }}

{{- /* From the metrics' scraper to the port of programs that end by themselves: (ROOT). */}}
{{- define "imgsearch.network.fromScraper" -}}
- from:
    {{- .Values.networkPolicy.metricsFrom | default (list (dict "namespaceSelector" dict)) | toYaml | nindent 4 }}
  ports:
    - port: 9090
      protocol: TCP
{{- end }}
