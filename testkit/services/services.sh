#!/usr/bin/env bash
# services.sh gives the integration tests real services: one Apache Kafka and one Redis, on free ports of the loopback
# interface.
#
#   services.sh up           start the services, unless they run already, and print how to reach them
#   services.sh down         end the services that up started, and remove their data
#   services.sh status       print how to reach the services; exit code 1 if they do not run
#   services.sh run CMD...   run a command with the services' addresses in its environment. It uses services that run
#                            already and leaves them alone; otherwise it starts them, and ends them after the command
#   services.sh jars         print the directory of Kafka's jars, for tests that start brokers of their own; fetch the
#                            jars that are missing
#
# Where a Docker engine answers, the services are the kafka and redis of docker-compose.yml. Elsewhere they are
# processes of this machine: Kafka from its Maven artifacts (needs java, mvn and openssl), Redis from PATH (needs
# redis-server). Only the Kafka process also has a listener with TLS and SASL.
#
# The tests find the addresses in environment variables:
#   CAPTURE_TEST_KAFKA_BROKERS        plaintext, no login
#   CAPTURE_TEST_KAFKA_SASL_BROKERS   TLS; login by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 as "capture", password
#                                     "secret", or by OAUTHBEARER with an unsigned JSON Web Token (alg "none") of
#                                     "capture"
#   CAPTURE_TEST_KAFKA_CA_FILE        the authority of the TLS listener's certificate
#   CAPTURE_TEST_REDIS_ADDR           no login
# Tests that need another Redis, or one that they can break, start it themselves: testkit/redisserver.
#
# The script writes nothing into the checkout. Below ${XDG_CACHE_HOME:-~/.cache}/capture it keeps Kafka's jars, and a
# directory for the running services of this checkout, with their data, logs and pid files. down removes that directory.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/capture
# Each checkout has services of its own.
id=$(printf %s "$root" | cksum | cut -d ' ' -f 1)
state=$cache/services/$id
env=$state/services.env

say() { printf 'services: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 1
}

need() {
  command -v "$1" >/dev/null ||
    die "$1 is missing: install it (Debian and Ubuntu: apt-get install $2; macOS: brew install $3)"
}

# --- processes

# started prints when the process with pid $1 was started, or nothing if there is no such process. A pid alone may
# belong to another process by now; a pid with its start does not.
started() {
  if [[ -d /proc/self ]]; then
    # Field 22 of "pid (name) state ...", where the name may hold spaces. A zombie has ended.
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 !~ /[ZX]/ { print $20 }' || true
  else
    ps -o lstart= -p "$1" | awk '{ $1 = $1; print }' || true
  fi
}

# spawn starts a service in the background: its name, then the command. The service outlives this script and its
# terminal.
spawn() {
  local name=$1
  shift
  nohup "$@" >"$state/$name.log" 2>&1 </dev/null &
  printf '%s %s\n' "$!" "$(started "$!")" >"$state/$name.pid"
}

# running tells whether the service $1 that spawn started still runs. It sets pid.
running() {
  local when
  [[ -s $state/$1.pid ]] || return 1
  read -r pid when <"$state/$1.pid"
  [[ -n $when && $(started "$pid") == "$when" ]]
}

stop() {
  local deadline=$((SECONDS + 10))
  running "$1" || return 0
  kill "$pid" 2>/dev/null || true
  while running "$1"; do
    if ((SECONDS >= deadline)); then
      kill -KILL "$pid" 2>/dev/null || true
    fi
    sleep 0.1
  done
}

# await polls until a service is ready: its name, the seconds to wait, then the command that tells whether it is.
await() {
  local name=$1 limit=$2 problem=
  local deadline=$((SECONDS + limit))
  shift 2
  until "$@"; do
    if ! running "$name"; then
      problem="$name has ended before it was ready"
    elif ((SECONDS >= deadline)); then
      problem="$name is not ready after $limit seconds"
    fi
    if [[ -n $problem ]]; then
      say "$problem; the end of its log:"
      tail -n 40 "$state/$name.log" >&2
      exit 1
    fi
    sleep 0.2
  done
}

# connects tells whether a program listens on port $1.
connects() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port sets port to a port that nobody listens on and that free_port has not given before. The range is below that
# of ephemeral ports, so that no outgoing connection takes the port before the service does.
given=" "
free_port() {
  while :; do
    port=$((20000 + RANDOM % 10000))
    if [[ $given != *" $port "* ]] && ! connects "$port"; then
      given+="$port "
      return
    fi
  done
}

# --- Redis

redis_answers() {
  local answer=
  {
    printf 'PING\r\n' >&3
    read -r -t 2 answer <&3
  } 3<>"/dev/tcp/127.0.0.1/$1" 2>/dev/null || true
  [[ $answer == +PONG* ]]
}

start_redis() {
  free_port
  redis_port=$port
  mkdir "$state/redis"
  spawn redis redis-server --port "$redis_port" --bind 127.0.0.1 --save "" --appendonly no --dir "$state/redis"
}

# --- Kafka

# fetch_kafka sets lib to a directory with Kafka's jars. A changed pom gets a directory of its own.
fetch_kafka() {
  lib=$cache/kafka/$(cksum <"$here/pom.xml" | cut -d ' ' -f 1)
  if [[ -d $lib ]]; then
    return
  fi
  need mvn maven maven
  say "fetching Kafka's jars, once"
  mkdir -p "$cache/kafka"
  local fetched
  fetched=$(mktemp -d "$cache/kafka/fetching.XXXXXX")
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$fetched" </dev/null >&2 ||
    { rm -rf "$fetched"; die "Kafka's jars could not be fetched"; }
  chmod 755 "$fetched"
  # If two scripts fetch the jars at the same time, the first to end wins.
  mv -T "$fetched" "$lib" 2>/dev/null || rm -rf "$fetched"
}

start_kafka() {
  local dir=$state/kafka plain controller scram bearer
  free_port && plain=$port
  free_port && kafka_sasl_port=$port
  free_port && controller=$port
  kafka_port=$plain
  scram=org.apache.kafka.common.security.scram.ScramLoginModule
  bearer=org.apache.kafka.common.security.oauthbearer
  mkdir "$dir"

  openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=capture-test-kafka -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$dir/key.pem" -out "$dir/ca.pem" 2>"$dir/openssl.log" ||
    { cat "$dir/openssl.log" >&2; die "openssl made no certificate"; }
  cat "$dir/key.pem" "$dir/ca.pem" >"$dir/server.pem"

  # With connections.max.reauth.ms a session by OAUTHBEARER ends with its token; without, the session would go on for
  # ever. The broker creates no topic that a client merely asks for, so that the tests see whether Capture creates its
  # own.
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$plain,SASL_SSL://127.0.0.1:$kafka_sasl_port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$plain,SASL_SSL://127.0.0.1:$kafka_sasl_port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$dir/data
num.partitions=6
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
ssl.keystore.type=PEM
ssl.keystore.location=$dir/server.pem
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_capture="secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$scram required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$scram required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=$bearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class=$bearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
PROPERTIES

  # A cluster id is 16 bytes in 22 characters of base64.
  java -cp "$lib/*" kafka.tools.StorageTool format -t CaptureIntegrationTest -c "$dir/server.properties" --standalone \
    --add-scram 'SCRAM-SHA-256=[name=capture,password=secret]' \
    --add-scram 'SCRAM-SHA-512=[name=capture,password=secret]' \
    >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; die "Kafka's storage could not be formatted"; }
  spawn kafka java -Xmx512m -cp "$lib/*" kafka.Kafka "$dir/server.properties"
}

# kafka_started tells whether Kafka is ready. Kafka writes the line once its broker is registered and answers requests
# on every listener.
kafka_started() {
  grep -q 'Kafka Server started' "$state/kafka.log" && connects "$kafka_port" && connects "$kafka_sasl_port"
}

# --- Docker

compose() { docker compose --project-name "capture-test-$id" --file "$root/docker-compose.yml" "$@"; }

# docker_engine tells whether the Docker client has an engine behind it and can compose.
docker_engine() {
  [[ -n $(docker info --format '{{.ServerVersion}}' 2>/dev/null || true) ]] && docker compose version >/dev/null 2>&1
}

# --- commands

# is_up tells whether every service runs.
is_up() {
  if [[ ! -f $env ]]; then
    return 1
  elif [[ -f $state/compose ]]; then
    [[ $(compose ps --quiet --status running 2>/dev/null | wc -l) -eq 2 ]]
  else
    running kafka && running redis
  fi
}

down() {
  if [[ -f $state/compose ]]; then
    compose down --volumes >&2
  fi
  stop kafka
  stop redis
  rm -rf "$state"
}

start() {
  # down removes the remains of services, or of a start, that were killed.
  down
  mkdir -p "$state"
  trap down EXIT
  if docker_engine; then
    say "using Docker: without TLS and SASL, so the tests that need them use a broker of their own"
    free_port && kafka_port=$port
    free_port && redis_port=$port
    touch "$state/compose"
    KAFKA_PORT=$kafka_port REDIS_PORT=$redis_port compose up --detach --wait --wait-timeout 120 kafka redis >&2
  else
    need redis-server redis-server redis
    need java openjdk-17-jre-headless openjdk
    need openssl openssl openssl
    fetch_kafka
    start_redis
    start_kafka
    # Seconds are enough, unless the machine does much else.
    await redis 120 redis_answers "$redis_port"
    await kafka 600 kafka_started
  fi
  {
    printf 'CAPTURE_TEST_KAFKA_BROKERS=127.0.0.1:%s\n' "$kafka_port"
    if [[ -n ${kafka_sasl_port:-} ]]; then
      printf 'CAPTURE_TEST_KAFKA_SASL_BROKERS=127.0.0.1:%s\n' "$kafka_sasl_port"
      printf "CAPTURE_TEST_KAFKA_CA_FILE='%s'\n" "$state/kafka/ca.pem"
    fi
    printf 'CAPTURE_TEST_REDIS_ADDR=127.0.0.1:%s\n' "$redis_port"
  } >"$env"
  trap - EXIT
}

status() {
  is_up || die "not running"
  say "running; set -a; . '$env'; set +a"
  cat "$env"
}

run() {
  if ! is_up; then
    start
    trap down EXIT
  fi
  set -a
  # shellcheck source=/dev/null
  . "$env"
  set +a
  "$@"
}

usage() { die "usage: services.sh up | down | status | jars | run COMMAND [ARGUMENT...]"; }

case "${1:-} $#" in
  "up 1")
    is_up || start
    status
    ;;
  "down 1") down ;;
  "status 1") status ;;
  "jars 1")
    need java openjdk-17-jre-headless openjdk
    fetch_kafka
    printf '%s\n' "$lib"
    ;;
  "run "*)
    shift
    (($# > 0)) || usage
    run "$@"
    ;;
  *) usage ;;
esac
