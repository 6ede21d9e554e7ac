{{- /* Parts that several monitoring objects share. */}}

{{- /* Metadata of an object with additional labels, by which another program selects it: (list ROOT NAME LABELS). */}}
{{- define "imgsearch.monitoring.metadata" -}}
{{- include "imgsearch.metadata" . }}
{{- with index . 2 }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Adds the label `release`, because several releases may share a namespace; no argument. */}}
{{- define "imgsearch.monitoring.release" -}}
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
  targetLabel: release
{{- end }}

{{- /* Labels of an alert, with those that its expression may have removed by a sum: (list ROOT SEVERITY). */}}
{{- define "imgsearch.monitoring.severity" -}}
severity: {{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace | quote }}
release: {{ (index . 0).Release.Name | quote }}
{{- end }}
