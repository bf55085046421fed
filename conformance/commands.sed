# What has changed since 1.20 in kubectl and in what is served, for the scripts that `commands.sh` runs.
# Each rule stays within its line, since failures are reported by line.
# 1.22 removed the v1beta1 of definitions, RBAC, signing requests and reviews.
s#apiextensions\.k8s\.io/v1beta1#apiextensions.k8s.io/v1#
s#^\( *\)"version": "\(v1[a-z0-9]*\)",#\1"versions": [{"name": "\2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],#
s#^  version: v1$#  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]#
s#certificates\.k8s\.io/v1beta1#certificates.k8s.io/v1#
s#^  request: LS0#  signerName: kubernetes.io/kube-apiserver-client\n  usages: [client auth]\n&#
s#\(tokenreview\|sar\)-v1beta1#\1-v1#
s#authorization\.k8s\.io/v1beta1#authorization.k8s.io/v1#
# 1.25 removed batch/v1beta1 and autoscaling/v2beta1; kubectl speaks autoscaling/v2.
s#batch/v1beta1#batch/v1#
s#autoscaling/v1\b#autoscaling/v2#
s#\.spec\.targetCPUUtilizationPercentage#(index .spec.metrics 0).resource.target.averageUtilization#
s#{{\$hpa_cpu_field}}#{{(index .spec.metrics 0).resource.target.averageUtilization}}#
# kubectl 1.21 hides owners of fields unless asked.
s#kubectl get \(.*managedFields\)#kubectl get --show-managed-fields \1#
# Flags that are gone, renamed, or needed now; warnings with a capital letter; the log's new form.
s# --generator[= ][^ ]*##
s#--service-overrides#--overrides#
s#--prune-whitelist#--prune-allowlist#g
s#kubectl exec \([^ ]*\) date#kubectl exec \1 -- date#
s#'warning: deleting#'Warning: deleting#
s#\(/[^" ]*\) 200 OK"#\1\\" status=\\"200 OK"#
s#horizontalpodautoscalers 200"#horizontalpodautoscalers\\" status=\\"200"#
# The client authority has a name of ours.
s#CN = 127\.0\.0\.1#CN = coracle-client-ca#
