{{- /* Quantities of CPU and memory as the API server stores them, so that `kubectl apply` finds no difference. */}}

{{- /* Requests and limits: (RESOURCES). */}}
{{- define "imgsearch.resources" -}}
{{- $resources := dict }}
{{- range $kind, $amounts := . }}
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

{{- /* A quantity as a whole number of the largest possible unit: 0.5 is 500m, 1000m is 1, 1.5Gi is 1536Mi: (VALUE).
Other quantities stay as they are: those with an exponent, with many digits, and those that are no whole number of the
units here, such as 0.3Gi. Their value is exact, but a second `kubectl apply` finds a difference. */}}
{{- define "imgsearch.quantity" -}}
{{- /* toString would print a number of 20000000000 as 2e+10. */}}
{{- $text := kindIs "string" . | ternary . (toJson .) }}
{{- $quantity := $text }}
{{- /* These numbers of digits fit into an int64, also after two steps to smaller units. */}}
{{- if regexMatch "^([0-9]{1,18}|[0-9]{1,6}[.][0-9]{1,6})[A-Za-z]*$" $text }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- $number := trimSuffix $unit $text | splitn "." 2 }}
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
{{- /* The quantity is $whole / $divisor units. As long as this is a fraction, take a smaller unit. */}}
{{- $whole := print $number._0 $number._1 | atoi }}
{{- $divisor := print "1" (repeat (len ($number._1 | default "")) "0") | atoi }}
{{- range until 2 }}
{{- if and (gt $at 0) (mod $whole $divisor) }}
{{- $whole = mul $whole $step }}
{{- $at = sub $at 1 | int }}
{{- end }}
{{- end }}
{{- if not (mod $whole $divisor) }}
{{- $whole = div $whole $divisor }}
{{- range $units }}
{{- if and $whole (lt $at (sub (len $units) 1 | int)) (eq 0 (mod $whole $step | int)) }}
{{- $whole = div $whole $step }}
{{- $at = add $at 1 | int }}
{{- end }}
{{- end }}
{{- $quantity = print $whole (and $whole (index $units $at) | default "") }}
{{- /* A number of bytes has decimal units. */}}
{{- if and (eq $step 1024) (eq $at 0) }}
{{- $quantity = include "imgsearch.quantity" (toString $whole) }}
{{- end }}
{{- end }}
{{- end }}
{{- $quantity }}
{{- end }}
