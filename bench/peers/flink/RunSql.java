package peers;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;

/** Runs the statements of a file on a Flink cluster in this JVM, as the SQL client would. */
public final class RunSql {
    private static final Pattern SET = Pattern.compile("SET '([^']*)' = '([^']*)'");

    public static void main(String[] arguments) throws Exception {
        TableEnvironment flink = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        String text = Files.readString(Path.of(arguments[0])).replaceAll("--[^\n]*", "");
        for (String statement : text.split(";")) {
            Matcher set = SET.matcher(statement.strip());
            if (set.matches()) {
                flink.getConfig().set(set.group(1), set.group(2));
            } else if (!statement.isBlank()) {
                flink.executeSql(statement);
            }
        }
    }
}
