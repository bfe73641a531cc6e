package peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.transforms.Transformation;

/** Filter and projection of the benchmark, as Kafka Connect has no filter on values: JSON in bytes, JSON out bytes. */
public final class FilterProject<R extends ConnectRecord<R>> implements Transformation<R> {
    private static final ObjectMapper JSON = new ObjectMapper();

    @Override
    public R apply(R record) {
        try {
            JsonNode event = JSON.readTree((byte[]) record.value());
            if (!event.path("type").asText().equals("play") || event.path("duration_ms").asLong() <= 30_000) {
                return null;
            }
            ObjectNode out = JSON.createObjectNode();
            out.set("event_id", event.path("id"));
            out.set("user", event.path("user").path("id"));
            out.set("title", event.path("content").path("title"));
            out.set("country", event.path("geo").path("country"));
            out.set("duration_ms", event.path("duration_ms"));
            return record.newRecord(record.topic(), record.kafkaPartition(), record.keySchema(), record.key(),
                record.valueSchema(), JSON.writeValueAsBytes(out), record.timestamp());
        } catch (IOException error) {
            throw new DataException(error);
        }
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef();
    }

    @Override
    public void configure(Map<String, ?> settings) {}

    @Override
    public void close() {}
}
