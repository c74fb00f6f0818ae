CREATE EXTERNAL TABLE IF NOT EXISTS `users` (
  `user_id` string COMMENT 'Pseudonym of the user: the same for the same user in every dataset.',
  `age_group` string COMMENT 'Age band of the user.',
  `region` string COMMENT 'Country of the user (ISO 3166-1), or a large region; \'other\' if the record is more precise.',
  `locale` string,
  `plan` string,
  `signed_up_at` timestamp,
  `updated_at` timestamp,
  `last_network` string COMMENT 'Network of the user\'s last address: its /24, or /48 for IPv6.',
  `marketing_opt_in` boolean,
  `tags` array<string> COMMENT 'Tags of the user. A tag that is not a short code is free text, and is null here.',
  `attributes` map<string,string> COMMENT 'Further attributes. Only keys listed in \'allow\' are kept.',
  `ingest_stream` string COMMENT 'Stream that the record was read from.',
  `ingest_shard` string COMMENT 'Shard of that stream.',
  `ingest_sequence` string COMMENT 'Sequence number in that shard, decimal.',
  `ingest_subsequence` bigint COMMENT 'Place in its aggregated record; 0 for a plain one.',
  `ingest_arrival_time` timestamp COMMENT 'When the record arrived in the stream (UTC).'
)
COMMENT 'Users\' metadata: one row for each change, by the time of the change.'
PARTITIONED BY (
  `year` int,
  `month` int,
  `day` int
)
STORED AS PARQUET
LOCATION 's3://lake/processed/users/'
TBLPROPERTIES (
  'classification' = 'parquet',
  'parquet.compression' = 'ZSTD',
  'projection.enabled' = 'true',
  'projection.year.type' = 'integer',
  'projection.year.range' = '2010,2099',
  'projection.year.digits' = '4',
  'projection.month.type' = 'integer',
  'projection.month.range' = '1,12',
  'projection.month.digits' = '2',
  'projection.day.type' = 'integer',
  'projection.day.range' = '1,31',
  'projection.day.digits' = '2',
  'storage.location.template' = 's3://lake/processed/users/year=${year}/month=${month}/day=${day}/'
);
