/* The floor of latency: consume a topic event by event and produce one in SHARE of them at once, with nothing between.
 *
 *   latency BROKERS IN OUT GROUP SHARE BYTES WARM_UP SECONDS
 *
 * Of each event that goes on, the first BYTES are produced. After WARM_UP seconds from the first event it looks for SECONDS at
 * the time from the record's timestamp to the answer of all in-sync replicas, then prints "p50 p99 max" in milliseconds. No
 * offsets are committed. The exit code is 1 if a delivery failed or there was nothing to look at.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include "common.h"

#define IDLE_SECONDS 60
#define MOST_MS 60000

/* Written by the thread that answers deliveries come to; when it has ended, by the one that flushes. */
static long counts[MOST_MS + 1], looked_at, failed;
/* Records with timestamps between these, in milliseconds since the epoch, are looked at. */
static _Atomic int64_t from_ms = INT64_MAX, to_ms = INT64_MAX;
static atomic_int ended;

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
  (void)rk, (void)opaque;
  if (message->err) {
    if (!failed++) fprintf(stderr, "delivery: %s\n", rd_kafka_err2str(message->err));
    return;
  }
  int64_t written = (int64_t)(intptr_t)message->_private;
  if (written < from_ms || written >= to_ms) return;
  int64_t latency = now_ms() - written;
  counts[latency < 0 ? 0 : latency > MOST_MS ? MOST_MS : latency]++;
  looked_at++;
}

static void *answers(void *producer) {
  while (!ended) rd_kafka_poll(producer, 100);
  return NULL;
}

/* Hands an event on; false where the producer's queue is full. */
static int forward(rd_kafka_topic_t *topic, const rd_kafka_message_t *message, size_t bytes) {
  rd_kafka_timestamp_type_t kind;
  void *written = (void *)(intptr_t)rd_kafka_message_timestamp(message, &kind);
  size_t size = message->len < bytes ? message->len : bytes;
  return rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, message->payload, size, message->key,
                          message->key_len, written) == 0;
}

static int quantile(double share) {
  long below = 0;
  for (int ms = 0; ms <= MOST_MS; ms++) {
    below += counts[ms];
    if (below >= share * looked_at) return ms;
  }
  return MOST_MS;
}

int main(int argc, char **argv) {
  if (argc != 9) {
    fprintf(stderr, "usage: latency BROKERS IN OUT GROUP SHARE BYTES WARM_UP SECONDS\n");
    return 2;
  }
  const long share = atol(argv[5]), bytes = atol(argv[6]), warm_up = atol(argv[7]) * 1000, look = atol(argv[8]) * 1000;

  rd_kafka_conf_t *target = rd_kafka_conf_new();
  set(target, "bootstrap.servers", argv[1]);
  set(target, "enable.idempotence", "true");
  set(target, "linger.ms", "0");
  set(target, "compression.codec", "lz4");
  rd_kafka_conf_set_dr_msg_cb(target, on_delivery);
  rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, target);
  rd_kafka_topic_t *out = rd_kafka_topic_new(producer, argv[3], NULL);
  pthread_t thread;
  if (pthread_create(&thread, NULL, answers, producer)) return 2;

  rd_kafka_t *consumer = consumer_of(argv[1], argv[4], argv[2]);
  int64_t first = 0, last = now_ms();
  long consumed = 0, full = 0;
  for (int64_t now = last; now - last < IDLE_SECONDS * 1000 && (!first || now - first < warm_up + look); now = now_ms()) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 100);
    if (!message) continue;
    if (!message->err) {
      last = now;
      if (!first) {
        first = now;
        to_ms = now + warm_up + look;
        from_ms = now + warm_up;
      }
      if (consumed++ % share == 0) full += !forward(out, message, bytes);
    }
    rd_kafka_message_destroy(message);
  }
  ended = 1;
  pthread_join(thread, NULL);
  rd_kafka_flush(producer, IDLE_SECONDS * 1000);

  int most = MOST_MS;
  while (most > 0 && !counts[most]) most--;
  printf("%d %d %d\n", quantile(0.5), quantile(0.99), most);
  rd_kafka_consumer_close(consumer);
  rd_kafka_destroy(consumer);
  rd_kafka_topic_destroy(out);
  rd_kafka_destroy(producer);
  return looked_at && !failed && !full ? 0 : 1;
}
