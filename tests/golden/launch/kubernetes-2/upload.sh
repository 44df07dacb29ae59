#!/bin/bash
# Copies what the run reads into the claim, at the same paths below files/.
set -euo pipefail

cd "$(dirname "$0")"
kubectl apply -f volume.yaml

kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Pod
metadata:
  name: clinic-aaaaaaaa-upload
spec:
  restartPolicy: Never
  containers:
  - name: upload
    image: busybox:1.37
    command:
    - sleep
    - '86400'
    volumeMounts:
    - name: rankwise
      mountPath: /rankwise
  volumes:
  - name: rankwise
    persistentVolumeClaim:
      claimName: clinic-aaaaaaaa
EOF

trap 'kubectl delete pod clinic-aaaaaaaa-upload --wait=false' EXIT
kubectl wait --for=condition=Ready pod/clinic-aaaaaaaa-upload --timeout=10m

kubectl exec clinic-aaaaaaaa-upload -- mkdir -p /rankwise/files
tar -chf - -C / clinic/plan.json clinic/facts.jsonl clinic/general.jsonl clinic/train.jsonl | kubectl exec -i clinic-aaaaaaaa-upload -- tar -xf - -C /rankwise/files
