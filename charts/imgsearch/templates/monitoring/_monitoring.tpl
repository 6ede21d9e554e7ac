{{- /* Parts that several monitoring objects share. */}}

{{- /* Adds the label `release`, because several releases may share a namespace; no argument. It has the default
`action`, because the API server adds it. */}}
{{- define "imgsearch.monitoring.release" -}}
- sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
  targetLabel: release
  action: replace
{{- end }}

{{- /* Labels of an alert, with those that its expression may have removed by a sum: (list ROOT SEVERITY). */}}
{{- define "imgsearch.monitoring.severity" -}}
severity: {{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace | quote }}
release: {{ (index . 0).Release.Name | quote }}
{{- end }}
