#!/usr/bin/env bash
# cortex beside other gateways, all before one `bench mock`, on whatever cores this machine has:
#   bench/peers/gateways.sh WORKDIR [options of `bench gateways`]
# Needs release builds of bench and cortex, nginx and haproxy; WORKDIR keeps two Python environments
# with the gateways of PyPI (versions below). Only 127.0.0.1 is used, and all that was started ends.
# NICE=-10 runs everything, the load too, ahead of what else the machine does.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-target}/release
ahead=(nice -n "${NICE:-0}")

install() {
    [ -x "$work/$1/bin/pip" ] || python3 -m venv "$work/$1"
    "$work/$1/bin/pip" install --quiet "${@:2}"
}
install venv smg==1.13.0 sglang-router==0.3.2 vllm-router==0.1.17
[ -n "${WITHOUT_LITELLM:-}" ] || install venv-litellm 'litellm[proxy]'

cat >"$work/cortex.toml" <<END
[gateway]
listen = "127.0.0.1:18100"
metrics_listen = "127.0.0.1:18101"
[[neurons]]
name = "mock"
endpoint = "http://127.0.0.1:18000"
END
cat >"$work/nginx.conf" <<END
worker_processes 1;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 16384; }
http {
    access_log off;
    client_body_buffer_size 128k;
    upstream engine { server 127.0.0.1:18000; keepalive 256; }
    server {
        listen 127.0.0.1:18110;
        keepalive_requests 1000000;
        location / {
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }
    }
}
END
cat >"$work/haproxy.cfg" <<END
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 2s
    timeout client 300s
    timeout server 300s
frontend clients
    bind 127.0.0.1:18120
    default_backend engine
backend engine
    http-reuse always
    server mock 127.0.0.1:18000
END
cat >"$work/litellm.yaml" <<END
model_list:
  - model_name: mock
    litellm_params: {model: openai/mock, api_base: http://127.0.0.1:18000/v1, api_key: none}
END

pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true' EXIT
gateways=()
# The name and port of a gateway, and its command.
start() {
    local name=$1 port=$2
    shift 2
    "${ahead[@]}" "$@" >"$work/$name.log" 2>&1 &
    pids+=($!)
    [ "$name" = mock ] || gateways+=(--gateway "$name=127.0.0.1:$port=$!")
}
ready() {
    local since=$EPOCHREALTIME
    for _ in $(seq 1200); do
        code=$(curl -s -o /dev/null -w '%{http_code}' -m 5 -H 'content-type: application/json' \
            -d '{"model":"mock","messages":[{"role":"user","content":"hi"}]}' \
            "http://127.0.0.1:$2/v1/chat/completions" || true)
        if [ "$code" = 200 ]; then
            echo "$1 answers after $(bc <<<"$EPOCHREALTIME - $since") s"
            return
        fi
        sleep 0.05
    done
    echo "$1 never answers; see $work/$1.log" >&2
    return 1
}

start mock 18000 "$target/bench" mock
sleep 1
start cortex 18100 "$target/cortex" serve --config "$work/cortex.toml"
ready cortex 18100
start nginx 18110 nginx -c "$work/nginx.conf"
ready nginx 18110
start haproxy 18120 haproxy -f "$work/haproxy.cfg"
ready haproxy 18120
router=(--host 127.0.0.1 --worker-urls http://127.0.0.1:18000 --log-level error)
start smg 18130 "$work/venv/bin/smg" launch "${router[@]}" --port 18130 \
    --policy cache_aware --prometheus-port 18131
ready smg 18130
start sglang-router 18140 "$work/venv/bin/sglang-router" launch "${router[@]}" --port 18140 \
    --policy cache_aware --prometheus-port 18141
ready sglang-router 18140
start vllm-router 18150 "$work/venv/bin/vllm-router" "${router[@]}" --port 18150 \
    --policy round_robin --prometheus-port 18151
ready vllm-router 18150
if [ -z "${WITHOUT_LITELLM:-}" ]; then
    export LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true
    start litellm 18160 "$work/venv-litellm/bin/litellm" --config "$work/litellm.yaml" \
        --host 127.0.0.1 --port 18160 --num_workers 1
    ready litellm 18160
fi
"${ahead[@]}" "$target/bench" gateways --direct 127.0.0.1:18000 "${gateways[@]}" "$@"
