import java.util.HashMap;
import java.util.Map;

/** A static map that nobody clears: RATE in MiB a second, after CALM seconds. */
class Leak {
    static final Map<Integer, byte[]> REQUESTS = new HashMap<>();

    public static void main(String[] arguments) throws InterruptedException {
        double rate = Double.parseDouble(arguments[0]);
        Thread.sleep((long) (Double.parseDouble(arguments[1]) * 1000));
        long began = System.nanoTime();
        while (true) {
            double due = (System.nanoTime() - began) / 1e9 * rate * 64;
            while (REQUESTS.size() < due) REQUESTS.put(REQUESTS.size(), new byte[16 << 10]);
            Thread.sleep(50);
        }
    }
}
