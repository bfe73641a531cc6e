/* What the floors share: each call works or ends the program with exit code 2. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rdkafka.h"

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
  char reason[512];
  if (rd_kafka_conf_set(conf, name, value, reason, sizeof reason) != RD_KAFKA_CONF_OK) {
    fprintf(stderr, "%s\n", reason);
    exit(2);
  }
}

static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
  char reason[512];
  rd_kafka_t *rk = rd_kafka_new(type, conf, reason, sizeof reason);
  if (!rk) {
    fprintf(stderr, "%s\n", reason);
    exit(2);
  }
  return rk;
}

/* A consumer of a topic, from its beginning, which commits nothing. All messages come to its one queue. */
static rd_kafka_t *consumer_of(const char *brokers, const char *group, const char *topic) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", brokers);
  set(conf, "group.id", group);
  set(conf, "auto.offset.reset", "earliest");
  set(conf, "enable.auto.commit", "false");
  rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER, conf);
  rd_kafka_poll_set_consumer(consumer);
  rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(topics, topic, RD_KAFKA_PARTITION_UA);
  rd_kafka_resp_err_t refused = rd_kafka_subscribe(consumer, topics);
  rd_kafka_topic_partition_list_destroy(topics);
  if (refused) {
    fprintf(stderr, "subscribe: %s\n", rd_kafka_err2str(refused));
    exit(2);
  }
  return consumer;
}
