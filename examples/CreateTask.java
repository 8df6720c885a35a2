// Create an OMS task and follow it until it ends. Needs: a JDK (17 or later); run with: java CreateTask.java
import java.net.URI;
import java.net.http.*;
import java.security.MessageDigest;
import java.time.*;
import java.time.format.DateTimeFormatter;
import java.util.HexFormat;
import java.util.regex.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class CreateTask {
    static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    static String env(String name) { return System.getenv(name); }

    static String sha256(String text) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(text.getBytes("UTF-8")));
    }

    /** A request that is signed with SDK-HMAC-SHA256. */
    static String call(String method, String tail, String body) throws Exception {
        URI uri = URI.create(env("WHIMBREL_ENDPOINT") + "/v2/" + env("WHIMBREL_PROJECT") + tail);
        String date = DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").format(OffsetDateTime.now(ZoneOffset.UTC));
        String canonical = method + "\n" + uri.getPath() + "/\n\nhost:" + uri.getAuthority() + "\nx-sdk-date:" + date
            + "\n\nhost;x-sdk-date\n" + sha256(body);
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(env("WHIMBREL_SK").getBytes("UTF-8"), "HmacSHA256"));
        byte[] signature = mac.doFinal(("SDK-HMAC-SHA256\n" + date + "\n" + sha256(canonical)).getBytes("UTF-8"));
        HttpRequest request = HttpRequest.newBuilder(uri).header("Content-Type", "application/json").header("X-Sdk-Date", date)
            .header("Authorization", "SDK-HMAC-SHA256 Access=" + env("WHIMBREL_AK") + ", SignedHeaders=host;x-sdk-date, Signature="
                + HexFormat.of().formatHex(signature))
            .method(method, body.isEmpty() ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofString(body)).build();
        HttpResponse<String> response = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() >= 300) throw new RuntimeException(response.statusCode() + " " + response.body());
        return response.body();
    }

    static String number(String json, String field) {
        Matcher found = Pattern.compile("\"" + field + "\":(\\d+)").matcher(json);
        return found.find() ? found.group(1) : "0";
    }

    public static void main(String[] args) throws Exception {
        String id = number(call("POST", "/tasks", """
            {"task_type": "prefix", "enable_metadata_migration": true,
             "src_node": {"cloud_type": "AWS", "region": "%s", "bucket": "%s", "object_key": [""], "ak": "%s", "sk": "%s"},
             "dst_node": {"region": "%s", "bucket": "%s", "ak": "%s", "sk": "%s"}}""".formatted(
            env("SOURCE_REGION"), env("SOURCE_BUCKET"), env("WHIMBREL_SOURCE_ACCESS_KEY"), env("WHIMBREL_SOURCE_SECRET_KEY"),
            env("TARGET_REGION"), env("TARGET_BUCKET"), env("WHIMBREL_TARGET_ACCESS_KEY"), env("WHIMBREL_TARGET_SECRET_KEY"))), "id");
        while (true) {
            String task = call("GET", "/tasks/" + id, "");
            int status = Integer.parseInt(number(task, "status"));
            System.out.printf("status %d: %s of %s objects, %s failed%n", status, number(task, "successful_num"),
                number(task, "total_num"), number(task, "failed_num"));
            if (status >= 3 && status <= 5) System.exit(status == 5 ? 0 : 1); // 3 paused, 4 failed, 5 succeeded
            Thread.sleep(1000);
        }
    }
}
