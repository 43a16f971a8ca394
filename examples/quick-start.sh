#!/bin/sh
# Builds immortal, keeps a small program alive with it, and kills the members of its group one after the other.
# Shows the log as it grows, and fails if something does not come back. Leaves nothing behind but what was built.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
command -v cargo >/dev/null 2>&1 || {
    echo "error: cargo: not found" >&2
    echo "hint: https://rustup.rs installs it" >&2
    exit 1
}

echo "== building (the first time takes a few minutes)"
# Cargo tells where it puts the executable; the monitor libraries lie beside it.
immortal=$(cd "$root" && cargo build --release --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/immortal\)".*/\1/p' | tail -n 1)
[ -n "$immortal" ] || { echo "error: the build failed" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/immortal-quick-start.XXXXXX")
# A runtime directory of our own: no other group of yours is seen or touched.
IMMORTAL_RUNTIME_DIR=$work/run
export IMMORTAL_RUNTIME_DIR
log=$work/server.log
clean_up() {
    "$immortal" stop --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' HUP INT TERM

fail() {
    echo "error: $1" >&2
    echo "--- status" >&2
    "$immortal" status server >&2 || true
    echo "--- log" >&2
    cat "$log" >&2 || true
    exit 1
}

# Waits up to 30 seconds until a command succeeds.
eventually() {
    what=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "$what did not happen"
        sleep 0.1
    done
}

# Reads the pids of the group into the variables process, monitor and daemon; 0 where there is none.
read_pids() {
    pids=$("$immortal" status server --json |
        sed -n 's/.*"pids":{"process":\([^,]*\),"monitor":\([^,]*\),"daemon":\([^}]*\)}.*/\1 \2 \3/p')
    # shellcheck disable=SC2086 # three words
    set -- $pids
    process=${1:-0} monitor=${2:-0} daemon=${3:-0}
    [ "$process" != null ] || process=0
    [ "$monitor" != null ] || monitor=0
    [ "$daemon" != null ] || daemon=0
}

# An ended process that nobody has reaped, as in a container without an init, is gone too.
is_gone() {
    kill -0 "$1" 2>/dev/null || return 0
    case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
        Z*) return 0 ;;
        *) return 1 ;;
    esac
}
has_line() { grep -q "$1" "$log"; }
shown=0
show_log() {
    lines=$(wc -l <"$log")
    sed -n "$((shown + 1)),${lines}s/^/    /p" "$log"
    shown=$((lines))
}

# The new pids are there, every member that should be replaced is, the others are not.
is_renewed() {
    read_pids
    [ "$process" -ne 0 ] && [ "$monitor" -ne 0 ] && [ "$daemon" -ne 0 ] || return 1
    [ "$process" -ne "$old_process" ] || return 1
    case $1 in
        process) [ "$monitor" -eq "$old_monitor" ] && [ "$daemon" -eq "$old_daemon" ] ;;
        monitor) [ "$monitor" -ne "$old_monitor" ] && [ "$daemon" -eq "$old_daemon" ] ;;
        daemon) [ "$monitor" -ne "$old_monitor" ] && [ "$daemon" -ne "$old_daemon" ] ;;
    esac
}

# Kills one member and waits until the group is whole again and the new process's lines are in the log.
kill_member() {
    read_pids
    old_process=$process old_monitor=$monitor old_daemon=$daemon
    eval "victim=\$$1"
    echo
    echo "== kill -9 $victim (the $2)"
    kill -9 "$victim"
    eventually "the return of the $2" is_renewed "$1"
    eventually "a line of process $process" has_line "from process $process"
    eventually "the end of process $old_process" is_gone "$old_process"
    eventually "the end of the killed $2" is_gone "$victim"
    show_log
    echo "    -> process $old_process is now $process, pump $old_monitor $monitor, daemon $old_daemon $daemon"
}

echo
echo "== starting a program that writes a line every 0.2 seconds"
# shellcheck disable=SC2016 # the program's own variables
"$immortal" start --name server --strategy daemon --monitor log --option "output=$log" \
    sh -c 'n=0; while :; do n=$((n + 1)); echo "line $n from process $$"; sleep 0.2; done'
eventually "the third line" has_line "line 3 from process"
show_log

kill_member process "program itself"
kill_member monitor "pump, which spawned the program and feeds the log"
kill_member daemon "daemon, which keeps the pump alive"

echo
echo "== the group, then its end"
"$immortal" list
read_pids
"$immortal" stop server
for pid in "$process" "$monitor" "$daemon"; do
    eventually "the end of $pid" is_gone "$pid"
done
[ "$("$immortal" list --json)" = "[]" ] || fail "the group is still listed after stop"
show_log
echo
echo "Everything came back, and nothing is left running."
