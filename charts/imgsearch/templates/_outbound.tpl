{{- /* How pods reach other servers: a proxy, and a private certificate authority. The arguments are (ROOT). */}}

{{- /* Variables of every container. SSL_CERT_FILE is read by obstore, httpx, the libraries of Hugging Face and Python's
ssl module. The controller trusts the CA of its ServiceAccount for the Kubernetes API. Kubernetes fills in
KUBERNETES_SERVICE_HOST. The list contains no networks, because httpx only compares hosts. */}}
{{- define "imgsearch.outbound.env" -}}
{{- with .Values.caBundle }}
{{- if or .existingConfigMap .existingSecret }}
- name: SSL_CERT_FILE
  value: {{ printf "/etc/imgsearch/ca/%s" .key | quote }}
{{- end }}
{{- end }}
{{- with .Values.proxy }}
{{- with .http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .http .https }}
{{- $services := list (printf "%s-chroma" $.Release.Name) (printf "%s-searcher" $.Release.Name) }}
{{- $kubernetes := list ".svc" ".cluster.local" "$(KUBERNETES_SERVICE_HOST)" "localhost" "127.0.0.1" "::1" }}
{{- $metadata := list "metadata.google.internal" "169.254.169.254" "169.254.170.2" "169.254.170.23" }}
{{- $metadata = concat $metadata (list "fd00:ec2::23" "fd00:ec2::254" "fd20:ce::254") }}
- name: NO_PROXY
  value: {{ concat $services $kubernetes $metadata .noProxy | join "," | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The ports of the proxy, as a list in YAML. */}}
{{- define "imgsearch.outbound.ports" -}}
{{- range list .Values.proxy.http .Values.proxy.https | compact }}
- {{ regexFind "[0-9]+/?$" . | trimSuffix "/" }}
{{- end }}
{{- end }}

{{- /* Mounts of every container. */}}
{{- define "imgsearch.outbound.mounts" -}}
{{- if or .Values.caBundle.existingConfigMap .Values.caBundle.existingSecret }}
- name: ca-bundle
  mountPath: /etc/imgsearch/ca
  readOnly: true
{{- end }}
{{- end }}

{{- /* Volumes of every pod. */}}
{{- define "imgsearch.outbound.volumes" -}}
{{- with .Values.caBundle.existingConfigMap }}
- name: ca-bundle
  configMap:
    name: {{ . | quote }}
{{- end }}
{{- with .Values.caBundle.existingSecret }}
- name: ca-bundle
  secret:
    secretName: {{ . | quote }}
{{- end }}
{{- end }}
