{{- /* What the monitoring objects have in common. */}}

{{- /* Metadata of an object that another program finds by further labels: (list ROOT NAME LABELS). */}}
{{- define "imgsearch.monitoring.metadata" -}}
{{- include "imgsearch.metadata" . }}
{{- with index . 2 }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where the label `release` comes from, since several releases may share a namespace; no argument. */}}
{{- define "imgsearch.monitoring.release" -}}
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
  targetLabel: release
{{- end }}

{{- /* Labels of an alert, those that its expression may have summed away included: (list ROOT SEVERITY). */}}
{{- define "imgsearch.monitoring.severity" -}}
severity: {{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace | quote }}
release: {{ (index . 0).Release.Name | quote }}
{{- end }}
