{{- /* Specs of pods and containers that two objects share. */}}

{{- /* The spec of a pod that runs `controller`: (list ROOT ARGS). */}}
{{- define "imgsearch.controller.podSpec" -}}
{{- $root := index . 0 -}}
{{- include "imgsearch.pod" (list $root $root.Values.controller "controller") }}
restartPolicy: Never
terminationGracePeriodSeconds: {{ $root.Values.controller.terminationGracePeriodSeconds }}
containers:
  - name: controller
    {{- include "imgsearch.container" (list $root "controller") | nindent 4 }}
    command: [controller]
    {{- with index . 1 }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    env:
      {{- include "imgsearch.env" (list $root "controller" (list "program" "metrics")) | nindent 6 }}
    {{- include "imgsearch.metrics.ports" . | nindent 4 }}
    resources:
      {{- include "imgsearch.resources" $root.Values.controller.resources | nindent 6 }}
    volumeMounts:
      {{- include "imgsearch.program.mounts" (list $root "controller") | nindent 6 }}
volumes:
  {{- include "imgsearch.program.volumes" (list $root "controller") | nindent 2 }}
{{- end }}

{{- /* The common part of both containers of a plan pod, without the command: (ROOT). */}}
{{- define "imgsearch.plan.container" -}}
{{- include "imgsearch.container" (list . "embedder") }}
env:
  {{- include "imgsearch.env" (list . "plan" (list "program" "worker" "images")) | nindent 2 }}
{{- with include "imgsearch.worker.envFrom" . }}
{{- . | nindent 0 }}
{{- end }}
resources:
  {{- include "imgsearch.resources" .Values.plan.resources | nindent 2 }}
volumeMounts:
  {{- include "imgsearch.worker.mounts" (list . "plan" true) | nindent 2 }}
  {{- include "imgsearch.images.mounts" . | nindent 2 }}
{{- end }}
