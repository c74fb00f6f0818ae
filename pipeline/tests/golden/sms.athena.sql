CREATE EXTERNAL TABLE IF NOT EXISTS `sms` (
  `event_type` string COMMENT 'Such as TEXT_DELIVERED, TEXT_SUCCESSFUL, TEXT_CARRIER_UNREACHABLE, MEDIA_DELIVERED or VOICE_COMPLETED.',
  `event_timestamp` timestamp COMMENT 'When the event was reported (UTC).',
  `event_version` string,
  `is_final` boolean COMMENT 'Whether no further event of the message follows.',
  `message_id` string COMMENT 'The same in all events of a message.',
  `requested_at` timestamp COMMENT 'When the message was handed in (UTC).',
  `message_type` string COMMENT 'PROMOTIONAL or TRANSACTIONAL.',
  `message_encoding` string COMMENT 'GSM or Unicode.',
  `message_status` string,
  `message_status_description` string COMMENT 'Kept if it has no digits, so that no number is in it.',
  `origination_identity` string COMMENT 'Pseudonym of the number or sender id that the message was sent from.',
  `destination` string COMMENT 'Pseudonym of the phone number that the message was sent to.',
  `is_international_send` boolean,
  `iso_country_code` string,
  `mcc` string COMMENT 'Mobile country code. A string, because codes may begin with 0.',
  `mnc` string COMMENT 'Mobile network code. A string, because codes may begin with 0.',
  `carrier_name` string,
  `context` map<string,string> COMMENT 'What the sender passed along with the message. Only keys listed in \'allow\' are kept.',
  `message_parts` int,
  `message_price` decimal(18,8) COMMENT 'Price of all parts, in US dollars.',
  `carrier_fee` decimal(18,8) COMMENT 'Fee of the carrier for all parts, in US dollars.',
  `duration_minutes` double COMMENT 'Minutes of a call that are charged (uncertain: see the head of this file).',
  `duration_seconds` double COMMENT 'Seconds of a call (uncertain: see the head of this file).',
  `protect_configuration_id` string,
  `protect_status` string COMMENT 'What the protect configuration decided, such as ALLOW, BLOCK, MONITOR or FILTER.',
  `ingest_stream` string COMMENT 'Stream that the record was read from.',
  `ingest_shard` string COMMENT 'Shard of that stream.',
  `ingest_sequence` string COMMENT 'Sequence number in that shard, decimal.',
  `ingest_subsequence` bigint COMMENT 'Place in its aggregated record; 0 for a plain one.',
  `ingest_arrival_time` timestamp COMMENT 'When the record arrived in the stream (UTC).'
)
COMMENT 'AWS End User Messaging events (SMS, MMS, voice), one row each.'
PARTITIONED BY (
  `year` int,
  `month` int,
  `day` int
)
STORED AS PARQUET
LOCATION 's3://lake/processed/sms/'
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
  'storage.location.template' = 's3://lake/processed/sms/year=${year}/month=${month}/day=${day}/'
);
