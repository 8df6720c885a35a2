#!/usr/bin/env bash
# Create an OMS task and follow it until it ends. Needs: bash, curl, openssl.
set -euo pipefail

sha256() { openssl dgst -sha256 -r | cut -c1-64; }

# hmac TEXT: HMAC-SHA256 with the secret key, which must not be an argument of a program: `ps` shows those.
hmac() {
  local i c inner= outer=
  for ((i = 0; i < 64; i++)); do
    c=0
    ((i >= ${#WHIMBREL_SK})) || printf -v c %d "'${WHIMBREL_SK:i:1}"
    printf -v inner '%s\\x%02x' "$inner" $((c ^ 0x36))
    printf -v outer '%s\\x%02x' "$outer" $((c ^ 0x5c))
  done
  inner=$({ printf "$inner"; printf %s "$1"; } | sha256)
  { printf "$outer"; printf "$(sed 's/../\\x&/g' <<<"$inner")"; } | sha256
}

# call METHOD PATH [BODY]: a request that is signed with SDK-HMAC-SHA256.
call() {
  local method=$1 path=/v2/$WHIMBREL_PROJECT/$2 body=${3-} date canonical signature
  date=$(date -u +%Y%m%dT%H%M%SZ)
  canonical=$(printf '%s\n%s/\n\nhost:%s\nx-sdk-date:%s\n\nhost;x-sdk-date\n%s' "$method" "$path" "${WHIMBREL_ENDPOINT#*://}" "$date" \
    "$(printf %s "$body" | sha256)")
  signature=$(hmac "$(printf 'SDK-HMAC-SHA256\n%s\n%s' "$date" "$(printf %s "$canonical" | sha256)")")
  printf %s "$body" | curl -sS --fail-with-body -X "$method" "$WHIMBREL_ENDPOINT$path" --data-binary @- \
    -H 'Content-Type: application/json' -H "X-Sdk-Date: $date" \
    -H "Authorization: SDK-HMAC-SHA256 Access=$WHIMBREL_AK, SignedHeaders=host;x-sdk-date, Signature=$signature"
}

number() { grep -o "\"$1\":[0-9]*" | head -n 1 | cut -d: -f2; }

body=$(cat <<JSON
{"task_type": "prefix", "enable_metadata_migration": true,
 "src_node": {"cloud_type": "AWS", "region": "$SOURCE_REGION", "bucket": "$SOURCE_BUCKET", "object_key": [""],
              "ak": "$WHIMBREL_SOURCE_ACCESS_KEY", "sk": "$WHIMBREL_SOURCE_SECRET_KEY"},
 "dst_node": {"region": "$TARGET_REGION", "bucket": "$TARGET_BUCKET",
              "ak": "$WHIMBREL_TARGET_ACCESS_KEY", "sk": "$WHIMBREL_TARGET_SECRET_KEY"}}
JSON
)
id=$(call POST tasks "$body" | number id)
while true; do
  task=$(call GET "tasks/$id")
  status=$(number status <<<"$task")
  echo "status $status: $(number successful_num <<<"$task") of $(number total_num <<<"$task") objects, $(number failed_num <<<"$task") failed"
  case $status in
    5) exit 0 ;;            # succeeded
    3 | 4) exit 1 ;;        # paused, failed
  esac
  sleep 1
done
