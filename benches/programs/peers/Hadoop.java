/* k-means and word count on Hadoop's LocalJobRunner, which runs map tasks in threads of this process.
 *
 * Owns the jobs. Must not know who measures: prints `begin` when a job of the same kind has run on the head of the input, `end`
 * when the result is there, and then its check value. Hadoop reads its input again in every job; that is part of it and is not
 * left out.
 *
 * usage: Hadoop kmeans|wordcount WORKERS INPUT DIRECTORY
 */
import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.StringTokenizer;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.io.BytesWritable;
import org.apache.hadoop.io.IntWritable;
import org.apache.hadoop.io.LongWritable;
import org.apache.hadoop.io.Text;
import org.apache.hadoop.mapreduce.Job;
import org.apache.hadoop.mapreduce.Mapper;
import org.apache.hadoop.mapreduce.Reducer;
import org.apache.hadoop.mapreduce.lib.input.FileInputFormat;
import org.apache.hadoop.mapreduce.lib.input.FixedLengthInputFormat;
import org.apache.hadoop.mapreduce.lib.output.FileOutputFormat;

public class Hadoop {
    static final int CLUSTERS = 16, DIMENSIONS = 8, ROUNDS = 10, POINT_BYTES = 8 * DIMENSIONS;
    static final int HEAD_BYTES = 64 * 16384;
    static final String MEANS = "kmeans.means";

    final String workers, input, directory;
    int jobs = 0;

    Hadoop(String workers, String input, String directory) {
        this.workers = workers;
        this.input = input;
        this.directory = directory;
    }

    public static void main(String[] arguments) throws Exception {
        Hadoop hadoop = new Hadoop(arguments[1], arguments[2], arguments[3]);
        String head = arguments[3] + "/head";
        try (FileInputStream file = new FileInputStream(arguments[2])) {
            Files.write(Paths.get(head), file.readNBytes(HEAD_BYTES));
        }
        if (arguments[0].equals("kmeans")) hadoop.kmeans(head);
        else hadoop.wordcount(head);
    }

    /** Sums each cluster in memory and gives the sums out at the end of its part. */
    public static class Assign extends Mapper<LongWritable, BytesWritable, IntWritable, Text> {
        private final long[] point = new long[DIMENSIONS];
        private final long[][] sums = new long[CLUSTERS][DIMENSIONS + 1];
        private long[] means;

        @Override
        protected void setup(Context context) {
            means = longs(context.getConfiguration().get(MEANS));
        }

        @Override
        protected void map(LongWritable offset, BytesWritable record, Context context) {
            ByteBuffer.wrap(record.getBytes()).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().get(point);
            int nearest = 0;
            long least = Long.MAX_VALUE;
            for (int k = 0; k < CLUSTERS; k++) {
                long distance = 0;
                for (int d = 0; d < DIMENSIONS; d++) {
                    long difference = point[d] - means[k * DIMENSIONS + d];
                    distance += difference * difference;
                }
                if (distance < least) {
                    least = distance;
                    nearest = k;
                }
            }
            for (int d = 0; d < DIMENSIONS; d++) sums[nearest][d] += point[d];
            sums[nearest][DIMENSIONS]++;
        }

        @Override
        protected void cleanup(Context context) throws IOException, InterruptedException {
            for (int k = 0; k < CLUSTERS; k++) context.write(new IntWritable(k), new Text(words(sums[k])));
        }
    }

    /** The centroid of a cluster; an empty one keeps its own. */
    public static class Average extends Reducer<IntWritable, Text, IntWritable, Text> {
        @Override
        protected void reduce(IntWritable cluster, Iterable<Text> parts, Context context)
                throws IOException, InterruptedException {
            long[] sums = new long[DIMENSIONS + 1];
            for (Text part : parts) {
                long[] more = longs(part.toString());
                for (int d = 0; d <= DIMENSIONS; d++) sums[d] += more[d];
            }
            int first = cluster.get() * DIMENSIONS;
            long[] mean = Arrays.copyOfRange(longs(context.getConfiguration().get(MEANS)), first, first + DIMENSIONS);
            long count = sums[DIMENSIONS];
            if (count > 0) for (int d = 0; d < DIMENSIONS; d++) mean[d] = sums[d] / count;
            context.write(cluster, new Text(words(mean)));
        }
    }

    /** As in Hadoop's own tutorial, with the same class as combiner and reducer. */
    public static class Tokenize extends Mapper<LongWritable, Text, Text, LongWritable> {
        private final LongWritable one = new LongWritable(1);
        private final Text word = new Text();

        @Override
        protected void map(LongWritable offset, Text line, Context context) throws IOException, InterruptedException {
            StringTokenizer words = new StringTokenizer(line.toString());
            while (words.hasMoreTokens()) {
                word.set(words.nextToken());
                context.write(word, one);
            }
        }
    }

    public static class Add extends Reducer<Text, LongWritable, Text, LongWritable> {
        @Override
        protected void reduce(Text word, Iterable<LongWritable> counts, Context context)
                throws IOException, InterruptedException {
            long sum = 0;
            for (LongWritable count : counts) sum += count.get();
            context.write(word, new LongWritable(sum));
        }
    }

    void kmeans(String head) throws Exception {
        ByteBuffer first = ByteBuffer.wrap(Files.readAllBytes(Paths.get(head)), 0, CLUSTERS * POINT_BYTES);
        long[] means = new long[CLUSTERS * DIMENSIONS];
        first.order(ByteOrder.LITTLE_ENDIAN).asLongBuffer().get(means);
        round(head, means);
        System.out.println("begin");
        for (int i = 0; i < ROUNDS; i++) means = round(input, means);
        System.out.println("end");
        ByteBuffer bytes = ByteBuffer.allocate(CLUSTERS * POINT_BYTES).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asLongBuffer().put(means);
        System.out.println(String.format("%016x", fnv(bytes.array())));
    }

    long[] round(String from, long[] means) throws Exception {
        Job job = job(from);
        job.getConfiguration().set(MEANS, words(means));
        FixedLengthInputFormat.setRecordLength(job.getConfiguration(), POINT_BYTES);
        job.setInputFormatClass(FixedLengthInputFormat.class);
        job.setMapperClass(Assign.class);
        job.setReducerClass(Average.class);
        job.setOutputKeyClass(IntWritable.class);
        job.setOutputValueClass(Text.class);
        long[] next = new long[CLUSTERS * DIMENSIONS];
        try (BufferedReader lines = result(job)) {
            for (String line; (line = lines.readLine()) != null;) {
                String[] parts = line.split("\t");
                System.arraycopy(longs(parts[1]), 0, next, Integer.parseInt(parts[0]) * DIMENSIONS, DIMENSIONS);
            }
        }
        return next;
    }

    void wordcount(String head) throws Exception {
        count(head).close();
        System.out.println("begin");
        BufferedReader lines = count(input);
        System.out.println("end");
        long sum = 0, words = 0, distinct = 0;
        for (String line; (line = lines.readLine()) != null; distinct++) {
            String[] parts = line.split("\t");
            long count = Long.parseLong(parts[1]);
            sum += fnv(parts[0].getBytes(StandardCharsets.US_ASCII)) * count;
            words += count;
        }
        System.out.println(String.format("%016x/%d/%d", sum, words, distinct));
    }

    BufferedReader count(String from) throws Exception {
        Job job = job(from);
        job.setMapperClass(Tokenize.class);
        job.setCombinerClass(Add.class);
        job.setReducerClass(Add.class);
        job.setOutputKeyClass(Text.class);
        job.setOutputValueClass(LongWritable.class);
        return result(job);
    }

    /** A job with a map task for each worker; its end is noticed within 10 ms, not within 5 s as it would be otherwise. */
    Job job(String from) throws IOException {
        Configuration configuration = new Configuration();
        configuration.set("fs.defaultFS", "file:///");
        configuration.set("hadoop.tmp.dir", directory + "/tmp");
        configuration.set("mapreduce.framework.name", "local");
        configuration.set("mapreduce.local.map.tasks.maximum", workers);
        configuration.setInt("mapreduce.client.completion.pollinterval", 10);
        Job job = Job.getInstance(configuration);
        job.setJarByClass(Hadoop.class);
        FileInputFormat.addInputPath(job, new Path(from));
        FileInputFormat.setMinInputSplitSize(job, new File(from).length() / Integer.parseInt(workers) + POINT_BYTES);
        FileOutputFormat.setOutputPath(job, new Path(directory, "job-" + jobs++));
        return job;
    }

    /** Runs a job and opens what it wrote. */
    BufferedReader result(Job job) throws Exception {
        if (!job.waitForCompletion(false)) throw new IOException("job " + (jobs - 1) + " failed");
        return Files.newBufferedReader(Paths.get(directory, "job-" + (jobs - 1), "part-r-00000"));
    }

    static String words(long[] numbers) {
        return LongStream.of(numbers).mapToObj(Long::toString).collect(Collectors.joining(" "));
    }

    static long[] longs(String words) {
        return Arrays.stream(words.split(" ")).mapToLong(Long::parseLong).toArray();
    }

    static long fnv(byte[] data) {
        long state = 0xcbf29ce484222325L;
        for (byte each : data) state = (state ^ (each & 0xff)) * 0x100000001b3L;
        return state;
    }
}
