/* The floor of a mirror: consume a topic and produce each event to another, with nothing between.
 *
 *   mirror BROKERS IN OUT GROUP EVENTS
 *
 * Ends after EVENTS events are acknowledged by all in-sync replicas. Payloads and keys are copied once, as
 * librdkafka frees a consumed message with its batch. No offsets are committed: this is less than a mirror
 * that may be trusted does. Prints consumed and delivered counts; the exit code is 1 if they fall short.
 */
#include <time.h>
#include "common.h"

#define BATCH 1000
#define IDLE_SECONDS 60

static long delivered, failed;

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
  (void)rk, (void)opaque;
  if (message->err) {
    if (!failed++) fprintf(stderr, "delivery: %s\n", rd_kafka_err2str(message->err));
  } else {
    delivered++;
  }
}

/* Hands one event to the producer; a full queue waits for deliveries. */
static void forward(rd_kafka_t *producer, rd_kafka_topic_t *topic, rd_kafka_message_t *message) {
  while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, message->payload, message->len,
                          message->key, message->key_len, NULL) == -1) {
    if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      fprintf(stderr, "produce: %s\n", rd_kafka_err2str(rd_kafka_last_error()));
      exit(2);
    }
    rd_kafka_poll(producer, 100);
  }
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: mirror BROKERS IN OUT GROUP EVENTS\n");
    return 2;
  }
  const long events = atol(argv[5]);

  rd_kafka_conf_t *target = rd_kafka_conf_new();
  set(target, "bootstrap.servers", argv[1]);
  set(target, "acks", "all");
  set(target, "compression.codec", "lz4");
  rd_kafka_conf_set_dr_msg_cb(target, on_delivery);
  rd_kafka_t *producer = client(RD_KAFKA_PRODUCER, target);
  rd_kafka_topic_t *out = rd_kafka_topic_new(producer, argv[3], NULL);

  rd_kafka_t *consumer = consumer_of(argv[1], argv[4], argv[2]);

  static rd_kafka_message_t *batch[BATCH];
  rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(consumer);
  long consumed = 0;
  time_t last = time(NULL);
  while (consumed < events && time(NULL) - last < IDLE_SECONDS) {
    ssize_t count = rd_kafka_consume_batch_queue(queue, 100, batch, BATCH);
    for (ssize_t i = 0; i < count; i++) {
      if (!batch[i]->err && consumed < events) {
        forward(producer, out, batch[i]);
        consumed++;
        last = time(NULL);
      }
      rd_kafka_message_destroy(batch[i]);
    }
    rd_kafka_poll(producer, 0);
  }
  rd_kafka_flush(producer, IDLE_SECONDS * 1000);

  printf("consumed %ld delivered %ld\n", consumed, delivered);
  rd_kafka_queue_destroy(queue);
  rd_kafka_consumer_close(consumer);
  rd_kafka_destroy(consumer);
  rd_kafka_topic_destroy(out);
  rd_kafka_destroy(producer);
  return delivered == events ? 0 : 1;
}
