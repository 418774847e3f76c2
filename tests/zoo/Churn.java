import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;

/** A healthy JVM: a cache that forgets its oldest, and some 60 MiB a second of garbage. The argument is the cache's size in MiB. */
class Churn {
    public static void main(String[] arguments) throws InterruptedException {
        int entries = Integer.parseInt(arguments[0]) * 64;
        Map<Integer, byte[]> cache = new LinkedHashMap<>() {
            @Override
            protected boolean removeEldestEntry(Map.Entry<Integer, byte[]> eldest) {
                return size() > entries;
            }
        };
        Random random = new Random(1);
        for (int n = 0; ; n++) {
            cache.put(random.nextInt(entries * 2), new byte[16 << 10]);
            long sum = 0;
            for (int k = 0; k < 20; k++) sum += new byte[16 << 10].length + random.nextInt();
            if (sum == 42) System.out.println(sum);
            if (n % 2 == 0) Thread.sleep(10);
        }
    }
}
