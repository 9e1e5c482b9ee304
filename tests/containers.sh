#!/usr/bin/env bash
# The compose files under docker/, as they are, on a real Docker engine, with an image as docker/Dockerfile says.
#
# Needs root, /dev/net/tun and the programs of .ci/run. The engine runs in network, mount and process namespaces of its own
# and reaches nobody: what it starts, mounts and filters ends with them, whatever ends this script.
#
#   HALFOPEN_BINARY=FILE   a static halfopen to put into the image; without it one is built
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# No single wait is longer, in seconds.
patience=60
# What the compose files name; here it is Debian's busybox.
busybox_image=busybox:1.37

# ── outside: build, enter the namespaces, clean up ───────────────────────────────────────────────────────────────────────

build() {
    # Musl where it is installed, as in the image. Else glibc, as static.
    local target host
    host=$(rustc -vV | sed -n 's/^host: //p')
    target=${host/-gnu/-musl}
    [[ -d $(rustc --print target-libdir --target "$target") ]] || target=$host
    RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --quiet --locked --profile image --bin halfopen --target "$target" >&2
    printf '%s/%s/image/halfopen\n' "${CARGO_TARGET_DIR:-target}" "$target"
}

outside() {
    if ((EUID != 0)) || [[ ! -c /dev/net/tun ]]; then
        printf 'needs root and /dev/net/tun\n' >&2
        exit 77
    fi
    local binary status=0
    binary=${HALFOPEN_BINARY:-$(build)}
    directory=$(mktemp -d --tmpdir halfopen-containers.XXXXXX)
    trap clean EXIT
    cp "$binary" "$directory/halfopen"
    cp -r docker "$directory/docker"
    # Dies with this script, and all that is inside with it.
    setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc \
        "tests/${BASH_SOURCE[0]##*/}" inside "$directory" &
    namespaces=$!
    wait "$namespaces" || status=$?
    exit "$status"
}

clean() {
    if [[ -n ${namespaces:-} ]]; then
        kill -KILL "$namespaces" 2>/dev/null || true
        wait "$namespaces" 2>/dev/null || true
    fi
    # The kernel keeps the groups of containers, and lets go of them when the last process has ended.
    local end=$((SECONDS + patience))
    while find /sys/fs/cgroup -type d -name "${directory##*/}" | grep -q . && ((SECONDS < end)); do
        find /sys/fs/cgroup -depth -type d -path "*/${directory##*/}*" -exec rmdir {} \; 2>/dev/null || true
    done
    rm -rf "$directory"
}

# ── inside: an engine, and what is shown on it ───────────────────────────────────────────────────────────────────────────

passed=0

ok() { # SENTENCE
    passed=$((passed + 1))
    printf 'ok  %s\n' "$1"
}

fail() { # SENTENCE
    trap - ERR
    printf 'FAILED  %s\n' "$1" >&2
    local id
    for id in $(docker ps -aq 2>/dev/null); do
        printf '── the last lines of %s\n' "$(docker inspect -f '{{.Name}} {{json .State}}' "$id")" >&2
        docker logs --tail 30 "$id" >&2 || true
    done
    for id in compose dockerd; do
        printf '── the last lines of %s\n' "$id" >&2
        tail -n 20 "$directory/$id.log" >&2 || true
    done
    exit 1
}

# Asks again and again until the command succeeds: nothing tells when a container has got where it is to be.
within() { # SENTENCE COMMAND...
    local sentence=$1 end=$((SECONDS + patience))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "$sentence"
        sleep 0.1
    done
    ok "$sentence"
}

says() { # SENTENCE EXPECTED COMMAND...
    local sentence=$1 expected=$2 found
    shift 2
    found=$("$@" 2>&1) || fail "$sentence: $* fails: $found"
    [[ $found == *"$expected"* ]] || fail "$sentence: '$expected' is not in: $found"
    ok "$sentence"
}

compose() {
    docker-compose -p "$project" -f "docker/compose.$project.yaml" -f docker/compose.test.yaml "$@" 2>>"$directory/compose.log"
}

id() { compose ps -a -q "$1"; } # SERVICE

state() { docker inspect -f "{{.State.$2}}" "$(id "$1")"; } # SERVICE FIELD

is() { [[ $(state "$1" "$2") == "$3" ]]; } # SERVICE FIELD VALUE

in_log() { named_in_log "$(id halfopen)" "$1"; } # TEXT

# Runs a program of the host in the network of halfopen.
in_network() { nsenter --net --target "$(state halfopen Pid)" "$@"; }

# Fails if the rule never fired since the start.
fired() { # RULE
    in_network timeout 5 busybox wget -q -O - http://127.0.0.1:8474/metrics |
        grep "^halfopen_rule_fired_total{.*$1" | grep -v ' 0$'
}

ask() { docker exec "$(id "$1")" timeout 20 wget -q -O - "$2"; } # SERVICE URL

start_engine() {
    # The sockets of an engine that the host may have are there.
    mount -t tmpfs none /run
    ip link set lo up
    export DOCKER_HOST=unix://$directory/docker.sock DOCKER_CONFIG=$directory DOCKER_BUILDKIT=0
    dockerd --data-root "$directory/data" --exec-root "$directory/exec" --pidfile "$directory/docker.pid" \
        --host "$DOCKER_HOST" --cgroup-parent "/${directory##*/}" --exec-opt native.cgroupdriver=cgroupfs \
        >"$directory/dockerd.log" 2>&1 &
    within "the engine answers" docker info
}

make_images() {
    # The last stage of the Dockerfile, with a program that is there already: its first stage needs a registry.
    mkdir "$directory/context"
    sed -n '/^FROM scratch/,$ { s/ --from=build / /; p }' docker/Dockerfile >"$directory/context/Dockerfile"
    mv "$directory/halfopen" "$directory/context"
    docker build -t halfopen "$directory/context" >"$directory/build.log" 2>&1 || fail "the image is built"
    local name root=$directory/root
    mkdir -p "$root/bin" "$root/tmp"
    # With its libraries: one that is static cannot look up names.
    for name in $(command -v busybox) $(ldd "$(command -v busybox)" | grep -o '/[^ ]*'); do
        install -D "$(realpath "$name")" "$root/$name"
    done
    busybox --list | while read -r name; do ln -sf "$(command -v busybox)" "$root/bin/$name"; done
    tar -C "$directory/root" -c . | docker import - "$busybox_image" >/dev/null
    says "the image has the program and nothing else" "$(stat -c %s "$directory/context/halfopen")" \
        docker inspect -f '{{.Size}}' halfopen
}

sidecar() {
    project=sidecar
    compose up -d --no-build || fail "the sidecar's compose file comes up"
    within "sidecar: its health check passes" is halfopen Health.Status healthy
    says "sidecar: the application reaches the server" hello ask app http://server/
    within "sidecar: its rule acts on the application's connections" fired syn-drop
    says "sidecar: the event log has the fault" syn-drop docker exec "$(id halfopen)" /halfopen ladder /events/run.jsonl
    says "sidecar: a request takes the second that the SYN took" yes takes_a_second
    local status
    status=/proc/$(state halfopen Pid)/status
    says "sidecar: CAP_NET_ADMIN is all that it keeps" "CapPrm:	0000000000001000" grep CapPrm "$status"
    says "sidecar: no program that it may start gets more" "NoNewPrivs:	1" grep NoNewPrivs "$status"

    docker kill -s KILL "$(id halfopen)" >/dev/null
    within "sidecar: it is killed" is halfopen Running false
    says "sidecar: without it the application reaches the server" hello ask app http://server/
    docker start "$(id halfopen)" >/dev/null
    within "sidecar: started again it is healthy" is halfopen Health.Status healthy
    within "sidecar: and intercepts again" fired syn-drop

    # As in a deployment of a new version of the application.
    local before
    before=$(state halfopen StartedAt)
    docker restart -t 1 "$(id app)" >/dev/null
    within "sidecar: it notices that its application's network is gone" in_log "has lost its network"
    within "sidecar: it is started again" started_after "$before"
    within "sidecar: in the new network it is healthy" is halfopen Health.Status healthy
    within "sidecar: and intercepts" fired syn-drop
    end_in_order
    compose down -t 5 || fail "the sidecar's compose file goes down"
}

takes_a_second() {
    local start
    start=$(date +%s%N)
    ask app http://server/ >/dev/null
    (($(date +%s%N) - start >= 1000000000)) && echo yes
}

started_after() { [[ $(state halfopen StartedAt) > $1 ]] && is halfopen Running true; } # TIME

# As process 1 it has no signal handling but its own.
end_in_order() {
    local server
    server=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$(id server)")
    in_network bash -c "exec 3<>/dev/tcp/$server/80 && touch connected && exec sleep 1000" &
    within "sidecar: a connection is open" test -e connected
    docker kill -s TERM "$(id halfopen)" >/dev/null
    within "sidecar: at SIGTERM it waits for the connection" in_log stopping
    says "sidecar: and tells that it is not ready" 503 fails in_network timeout 5 busybox wget -O - http://127.0.0.1:8474/readyz
    is halfopen Running true || fail "sidecar: it does not wait"
    docker kill -s TERM "$(id halfopen)" >/dev/null
    within "sidecar: the second SIGTERM ends it" is halfopen Running false
    is halfopen ExitCode 0 || fail "sidecar: it ends with exit code $(state halfopen ExitCode)"
    ok "sidecar: it ends with exit code 0"
    says "sidecar: what it set up is gone" "0:	from all lookup local" docker exec "$(id app)" ip rule
    says "sidecar: and the application reaches the server" hello ask app http://server/
}

gateway() {
    project=gateway
    compose up -d --no-build || fail "the gateway's compose file comes up"
    within "gateway: its health check passes" is halfopen Health.Status healthy
    says "gateway: the client reaches the server" hello ask client http://10.91.2.3/
    within "gateway: its rule acts" fired "half a second"
    within "gateway: the server sees the client's address" named_in_log "$(id server)" 10.91.1.3

    printf '[intercept]\nports = [80]\n[[rule]]\nfault.refuse = {}\n' >docker/gateway/config.toml
    docker kill -s HUP "$(id halfopen)" >/dev/null
    within "gateway: at SIGHUP it takes the new rules" in_log "rules replaced"
    says "gateway: which act" "onnection refused" fails ask client http://10.91.2.3/
    printf '[[rule]]\nfault.refuze = {}\n' >docker/gateway/config.toml
    docker kill -s HUP "$(id halfopen)" >/dev/null
    within "gateway: a file with a mistake is told" in_log "the old rules stay"
    says "gateway: and changes nothing" "onnection refused" fails ask client http://10.91.2.3/

    docker kill -s KILL "$(id halfopen)" >/dev/null
    compose down -t 5 || fail "the gateway's compose file goes down"
}

listen() {
    project=listen
    compose up -d --no-build || fail "the compose file of listen mode comes up"
    within "listen: its health check passes" is halfopen Health.Status healthy
    says "listen: the application reaches the server" hello ask app http://halfopen:8080/
    within "listen: its rule acts" fired syn-ack-delay
    says "listen: so does the host" hello timeout 20 busybox wget -q -O - http://127.0.0.1:8080/
    docker kill -s KILL "$(id halfopen)" >/dev/null
    within "listen: it is killed" is halfopen Running false
    docker start "$(id halfopen)" >/dev/null
    within "listen: started again it is healthy" is halfopen Health.Status healthy
    says "listen: and reached" hello ask app http://halfopen:8080/
    docker stop -t 20 "$(id halfopen)" >/dev/null
    is halfopen ExitCode 0 || fail "listen: it ends with exit code $(state halfopen ExitCode)"
    ok "listen: it is stopped in order"
    compose down -t 5 || fail "the compose file of listen mode goes down"
}

# What a start without one of its lines in the compose file says.
messages() {
    local network everything=(--cap-drop ALL --cap-add NET_ADMIN --device /dev/net/tun)
    docker network create --ipv6 --subnet fd91::/64 network >/dev/null
    docker run -d --init --network network --name application "$busybox_image" sleep 1000 >/dev/null
    network=container:application
    refuses "without the capability" "add \`cap_add: [NET_ADMIN]\`" --cap-drop ALL --device /dev/net/tun
    refuses "without the device" "add \`devices: [\"/dev/net/tun\"]\`" --cap-drop ALL --cap-add NET_ADMIN
    docker run -d --name first --network "$network" "${everything[@]}" halfopen run --mode sidecar --ports 80 >/dev/null
    within "messages: IPv6 that passes by" named_in_log first "disable_ipv6: 0, net.ipv6.conf.all.forwarding: 1}"
    refuses "with another one there" "one sidecar takes all ports" "${everything[@]}"
    docker rm -f first >/dev/null
    docker run -d --name first --network "$network" "${everything[@]}" --sysctl net.ipv6.conf.all.disable_ipv6=0 \
        --sysctl net.ipv6.conf.all.forwarding=1 halfopen run --mode sidecar --ports 80 >/dev/null
    within "messages: with what was told to add it starts" named_in_log first ready
    ! named_in_log first "IPv6 connections pass by" || fail "messages: IPv6 still passes by"
    ok "messages: and takes IPv6"
    docker rm -f first >/dev/null
    network=network
    mode=gateway refuses "with kernel settings that are read-only" "add \`sysctls: {net.ipv6.conf.all." "${everything[@]}"

    network=container:application
    docker restart -t 0 application >/dev/null
    move_local_rule 0 100
    docker run -d --name first --network "$network" "${everything[@]}" halfopen run --mode sidecar --ports 80 >/dev/null
    within "messages: the rule for local addresses behind ours is no hindrance" named_in_log first ready
    docker stop -t 20 first >/dev/null
    says "messages: and stays where it was" "100:	from all lookup local" docker exec application ip rule
    move_local_rule 100 5
    refuses "with the rule for local addresses before ours" "to place 5" "${everything[@]}"
    docker rm -f first application >/dev/null
    docker network rm network >/dev/null
}

# As another program might.
move_local_rule() { # FROM TO
    nsenter --net --target "$(docker inspect -f '{{.State.Pid}}' application)" \
        sh -c "ip rule add pref $2 lookup local && ip rule del pref $1"
}

named_in_log() { docker logs "$1" 2>&1 | grep -qF -- "$2"; } # CONTAINER TEXT

refuses() { # SENTENCE EXPECTED OPTION...
    local sentence=$1 expected=$2
    shift 2
    says "messages: $sentence" "$expected" \
        fails docker run --rm --network "$network" "$@" halfopen run --mode "${mode:-sidecar}" --ports 80
}

fails() { ! "$@"; } # COMMAND...

inside() {
    directory=$1
    cd "$directory"
    trap 'fail "line $LINENO"' ERR
    start_engine
    make_images
    sidecar
    gateway
    listen
    messages
    printf '\n%d passed, 0 failed\n' "$passed"
}

if [[ ${1:-} == inside ]]; then
    inside "$2"
else
    outside
fi
