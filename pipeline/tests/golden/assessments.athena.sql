CREATE EXTERNAL TABLE IF NOT EXISTS `assessments` (
  `assessment_id` string COMMENT 'Identifier of the assessment.',
  `user_id` string COMMENT 'Pseudonym of the user: the same for the same user in every dataset.',
  `score` double COMMENT 'Score from 0 to 100.',
  `completion_time` int COMMENT 'How long the assessment took, in the unit of the producer (seconds).',
  `date` date COMMENT 'Day on which the assessment was completed (UTC).',
  `completed_at` timestamp COMMENT 'When the assessment was completed (UTC).',
  `age_group` string COMMENT 'Age band of the user.',
  `region` string COMMENT 'Country of the user (ISO 3166-1), or a large region; \'other\' if the record is more precise.',
  `answers` array<struct<`question`:string,`answer`:string,`milliseconds`:int>> COMMENT 'Answers in the order given. An answer or question that is not a short code is free text, and is null here.',
  `version` string COMMENT 'Version of the record\'s format.',
  `processed` boolean COMMENT 'Set by the first phase\'s upload.',
  `extra` string COMMENT 'Further top-level fields of the record, as a JSON object. Only keys listed in \'allow\' are kept.',
  `ingest_stream` string COMMENT 'Stream that the record was read from.',
  `ingest_shard` string COMMENT 'Shard of that stream.',
  `ingest_sequence` string COMMENT 'Sequence number in that shard, decimal.',
  `ingest_subsequence` bigint COMMENT 'Place in its aggregated record; 0 for a plain one.',
  `ingest_arrival_time` timestamp COMMENT 'When the record arrived in the stream (UTC).'
)
COMMENT 'Finished assessments, one row each.'
PARTITIONED BY (
  `type` string,
  `year` int,
  `month` int
)
STORED AS PARQUET
LOCATION 's3://lake/processed/assessments/'
TBLPROPERTIES (
  'classification' = 'parquet',
  'parquet.compression' = 'ZSTD'
);
-- Then, and whenever there are new partitions: MSCK REPAIR TABLE `assessments`;
