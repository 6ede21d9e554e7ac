{{- /* Quantities of CPU and memory as the API server stores them, so that `kubectl apply` finds no difference. */}}

{{- /* Requests and limits: (RESOURCES). */}}
{{- define "imgsearch.resources" -}}
{{- $resources := pick . "claims" }}
{{- range $kind, $amounts := pick . "requests" "limits" }}
{{- $quantities := dict }}
{{- range $name, $amount := $amounts }}
{{- $_ := set $quantities $name (include "imgsearch.quantity" $amount) }}
{{- end }}
{{- with $quantities }}
{{- $_ := set $resources $kind . }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- /* A quantity as a whole number of the largest possible unit: 0.5 is 500m, 1000m is 1, 1.5Gi is 1536Mi: (VALUE). It
also reads the floats of Helm, such as 2e+10. */}}
{{- define "imgsearch.quantity" -}}
{{- $text := toString . }}
{{- $unit := regexFind "[A-Za-z]+$" $text }}
{{- $number := regexFind "^[0-9.]+" $text | splitn "." 2 }}
{{- /* The quantity is $digits / 10^$decimals units. */}}
{{- $decimals := sub (len ($number._1 | default "")) (regexFind "[eE][+]?[0-9]+$" $text | trimAll "eE+" | int) | int }}
{{- $digits := regexReplaceAll "^0+" (print $number._0 $number._1) "" | default "0" }}
{{- $step := 1000 }}
{{- $units := list "n" "u" "m" "" "k" "M" "G" "T" "P" "E" }}
{{- if hasSuffix "i" $unit }}
{{- $step = 1024 }}
{{- $units = list "" "Ki" "Mi" "Gi" "Ti" "Pi" "Ei" }}
{{- end }}
{{- $at := 0 }}
{{- range $index, $name := $units }}
{{- if eq $name $unit }}
{{- $at = $index }}
{{- end }}
{{- end }}
{{- $whole := print $digits (repeat (int (max 0 (sub 0 $decimals))) "0") | int64 }}
{{- $divisor := print "1" (repeat (int (max 0 $decimals)) "0") | int64 }}
{{- /* As long as there is a fraction, take a smaller unit. A fraction of the smallest unit is rounded up. */}}
{{- range $units }}
{{- if and (gt $at 0) (mod $whole $divisor) }}
{{- $whole = mul $whole $step }}
{{- $at = sub $at 1 | int }}
{{- end }}
{{- end }}
{{- $whole = div (add $whole $divisor -1) $divisor }}
{{- range $units }}
{{- if and $whole (lt $at (sub (len $units) 1 | int)) (eq 0 (mod $whole $step | int)) }}
{{- $whole = div $whole $step }}
{{- $at = add $at 1 | int }}
{{- end }}
{{- end }}
{{- /* A number of bytes has decimal units. */}}
{{- if and (eq $step 1024) (eq $at 0) }}
{{- include "imgsearch.quantity" (toString $whole) }}
{{- else }}
{{- print $whole (and $whole (index $units $at) | default "") }}
{{- end }}
{{- end }}
