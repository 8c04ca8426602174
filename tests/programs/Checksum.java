import java.util.ArrayList;
import java.util.List;

/** Threads that allocate, so that the collector's threads work, and share one total. */
public class Checksum {
    private static long total;

    public static void main(String[] arguments) throws InterruptedException {
        int threads = Integer.parseInt(arguments[0]);
        int rounds = Integer.parseInt(arguments[1]);
        List<Thread> started = new ArrayList<>();
        for (int number = 0; number < threads; number++) {
            int seed = number + 1;
            Thread thread = new Thread(() -> add(work(seed, rounds)));
            thread.start();
            started.add(thread);
        }
        for (Thread thread : started) {
            thread.join();
        }
        System.gc();
        System.out.println("checksum " + Long.toHexString(total));
    }

    private static synchronized void add(long value) {
        total += value;
    }

    private static long work(int seed, int rounds) {
        long sum = 0;
        List<int[]> kept = new ArrayList<>();
        for (int round = 0; round < rounds; round++) {
            int[] block = new int[256 + (seed * 31 + round) % 256];
            for (int index = 0; index < block.length; index++) {
                block[index] = seed * 1_000_003 + round * 7919 + index;
            }
            if (round % 64 == 0) {
                kept.add(block);
            }
            sum = sum * 31 + block[block.length / 2];
        }
        for (int[] block : kept) {
            sum ^= block[0] * 0x9E3779B97F4A7C15L;
        }
        return sum;
    }
}
