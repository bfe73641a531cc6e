#!/bin/sh
# Installs what is missing: on Debian and Ubuntu by apt, elsewhere it names it.
#   setup.sh build   for the build: a Rust toolchain (only named, never installed) and a C compiler
#   setup.sh bench   what the benchmarks need besides: kcat, valgrind and Python with its virtual environments
#   setup.sh peers   what the peers of the benchmark need besides: a JDK, and rsyslog with its modules
#   setup.sh faults  what the battery of faults needs besides: libfaketime
#   setup.sh test    also what the tests on real servers need: Java and Maven, and promtool for those of the alerting rules
set -eu
what="${1:-test}"
servers=$(dirname "$0")/../.servers

if ! command -v cargo >/dev/null 2>&1; then
    echo "please install Rust 1.89 or newer with rustup" >&2
    exit 1
fi

# A full disk shows in the middle of the tests, as servers that time out: so it is said at the start.
room() { # room <GB> <directory> <for what>
    free=$(df -Pk "$2" 2>/dev/null | awk 'NR == 2 { print int($4 / 1000000) }')
    [ "${free:-$1}" -ge "$1" ] || echo "warning: $2 has $free GB free; $3 take about $1 GB there: free some, or expect failures" >&2
}

missing=""
need() { # need <program> <Debian package>
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

# Kafka, Elasticsearch and the Hive Metastore run on Java 17 to 22, wherever one of these is found.
java_fits() {
    for program in "${JAVA_HOME:-/nowhere}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*/bin/java; do
        [ -x "$program" ] || continue
        major=$("$program" -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p')
        [ -n "$major" ] && [ "$major" -ge 17 ] && [ "$major" -le 22 ] && return 0
    done
    return 1
}

java_package() {
    for package in openjdk-17-jre-headless openjdk-21-jre-headless; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            echo "$package"
            return
        fi
    done
    echo default-jre-headless
}

if [ "$what" = test ]; then
    [ -d "$servers" ] || room 6 "${CARGO_TARGET_DIR:-$(dirname "$0")}" "the build and the servers of the tests"
    room 3 "${TMPDIR:-/tmp}" "the data of the servers"
fi

need cc build-essential
need make build-essential
need perl perl                 # OpenSSL's build
[ "$what" = build ] || need mvn maven
[ "$what" = build ] || need unzip unzip
[ "$what" = build ] || need setpriv util-linux
if [ "$what" = faults ]; then
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
fi
if [ "$what" = bench ]; then
    need kcat kcat
    need valgrind valgrind
    need python3 python3
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
fi
if [ "$what" = peers ]; then
    need javac openjdk-17-jdk-headless
    need rsyslogd rsyslog
    ls /usr/lib/*/rsyslog/imkafka.so >/dev/null 2>&1 || missing="$missing rsyslog-kafka"
    ls /usr/lib/*/rsyslog/omelasticsearch.so >/dev/null 2>&1 || missing="$missing rsyslog-elasticsearch"
fi
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || missing="$missing ca-certificates"

java=yes
[ "$what" = build ] || java_fits || java=no
promtool=yes
[ "$what" != test ] || [ -x "$servers/promtool" ] || command -v promtool >/dev/null 2>&1 || promtool=no
[ -z "$missing" ] && [ "$java" = yes ] && [ "$promtool" = yes ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    [ "$java" = yes ] || missing="$missing java-17"
    [ "$promtool" = yes ] || missing="$missing prometheus"
    echo "please install (Debian's names):$missing" >&2
    exit 1
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        [ "$java" = yes ] || missing="$missing openjdk-17-jre-headless"
        [ "$promtool" = yes ] || missing="$missing prometheus"
        echo "please install as root: apt-get install$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi

$as_root apt-get update -q
[ "$java" = yes ] || missing="$missing $(java_package)"
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-upgrade $missing
fi
if [ "$promtool" = no ]; then
    # Taken out of its package: to install that would start a server.
    mkdir -p "$servers"
    unpacked=$(mktemp -d "$servers/promtool.XXXXXX")
    (cd "$unpacked" && apt-get download -q -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .)
    mv "$unpacked/usr/bin/promtool" "$servers/promtool"
    rm -r "$unpacked"
fi
