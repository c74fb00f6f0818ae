// An application of the Kinesis Client Library 3.1 that only counts records and their bytes. It is a peer in benches/aws.py, which
// compiles and starts it.
//
//   java -Daws.cborEnabled=… -cp JARS:… KclCount ENDPOINT APPLICATION RECORDS
//
// It stops after RECORDS records and prints one line of JSON: records, bytes, and the CPU seconds of the process at the first
// record, at half of the records, and at the end. All settings are defaults of the KCL, except that it starts sooner and that
// metrics are off. It never checkpoints, which is in its favour.

import java.lang.management.ManagementFactory;
import java.net.URI;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;

import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public final class KclCount {
    private static final AtomicLong RECORDS = new AtomicLong();
    private static final AtomicLong BYTES = new AtomicLong();
    private static final AtomicLong FIRST_CPU = new AtomicLong(-1);
    private static final AtomicLong HALF_CPU = new AtomicLong(-1);
    private static final AtomicLong HALF_BYTES = new AtomicLong();
    private static final CountDownLatch ALL = new CountDownLatch(1);

    private static long cpu() {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime();
    }

    private record Counting(long expected) implements ShardRecordProcessor {
        @Override
        public void initialize(InitializationInput input) {}

        @Override
        public void processRecords(ProcessRecordsInput input) {
            if (input.records().isEmpty()) {
                return;
            }
            FIRST_CPU.compareAndSet(-1, cpu());
            long bytes = 0;
            for (KinesisClientRecord record : input.records()) {
                bytes += record.data().remaining();
            }
            long allBytes = BYTES.addAndGet(bytes);
            long all = RECORDS.addAndGet(input.records().size());
            if (all >= expected / 2 && HALF_CPU.compareAndSet(-1, cpu())) {
                HALF_BYTES.set(allBytes);
            }
            if (all >= expected) {
                ALL.countDown();
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {}

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {}
    }

    public static void main(String[] arguments) throws InterruptedException {
        URI endpoint = URI.create(arguments[0]);
        String application = arguments[1];
        long expected = Long.parseLong(arguments[2]);
        var http = NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1).maxConcurrency(512);
        var kinesis = KinesisAsyncClient.builder().endpointOverride(endpoint).httpClientBuilder(http).build();
        var dynamodb = DynamoDbAsyncClient.builder().endpointOverride(endpoint).build();
        var cloudwatch = CloudWatchAsyncClient.builder().endpointOverride(endpoint).build();
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var tracker = new SingleStreamTracker("bench", start);
        var configs = new ConfigsBuilder(
            tracker, application, kinesis, dynamodb, cloudwatch, UUID.randomUUID().toString(),
            () -> new Counting(expected));
        var leases = configs.leaseManagementConfig().shardSyncIntervalMillis(5000);
        leases.workerUtilizationAwareAssignmentConfig().inMemoryWorkerMetricsCaptureFrequencyMillis(1000);
        var retrieval = configs.retrievalConfig().retrievalSpecificConfig(new PollingConfig("bench", kinesis));
        var scheduler = new Scheduler(
            configs.checkpointConfig(), configs.coordinatorConfig(), leases, configs.lifecycleConfig(),
            configs.metricsConfig().metricsLevel(MetricsLevel.NONE), configs.processorConfig(), retrieval);
        var thread = new Thread(scheduler, "scheduler");
        thread.setDaemon(true);
        thread.start();
        ALL.await();
        double end = cpu() / 1e9;
        System.out.printf(
            "{\"records\": %d, \"bytes\": %d, \"half_bytes\": %d, \"first_cpu\": %.3f, \"half_cpu\": %.3f, \"end_cpu\": %.3f}%n",
            RECORDS.get(), BYTES.get(), HALF_BYTES.get(), FIRST_CPU.get() / 1e9, HALF_CPU.get() / 1e9, end);
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }
}
