//! The part of `deploy/watch.yaml` that needs the worker's own figures: their alarms and their dashboard.
//!
//! The rest of the template is written by hand, on what AWS measures itself and on what the workers log.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::telemetry::emf::{DIMENSION, FIGURES, Figure, NAMESPACE};

/// Figures that have an alarm: the figure, what its resource is called, the threshold, and what to do.
const ALARMS: [(&str, &str, &str, &str); 1] = [(
    "oldest_age",
    "OldestAge",
    "!Ref FreshnessSeconds",
    "The oldest record that is not in the lake is too old. See docs/runbooks.md: ShardlakeDataNotFresh.",
)];

fn figure(name: &str) -> &'static Figure {
    FIGURES.iter().find(|figure| figure.name == name).unwrap_or(&FIGURES[0])
}

/// The resources in YAML.
pub fn text() -> String {
    let mut out = String::new();
    for (name, resource, threshold, description) in ALARMS {
        let figure = figure(name);
        let _ = write!(
            out,
            "  {resource}Alarm:
    Type: AWS::CloudWatch::Alarm
    Condition: HasFigures
    Properties:
      AlarmName: !Sub \"${{AWS::StackName}}-{}\"
      AlarmDescription: \"{description}\"
      Namespace: {NAMESPACE}
      MetricName: {name}
      Dimensions:
        - {{Name: {DIMENSION}, Value: !Ref FiguresOf}}
      Statistic: {}
      Period: 300
      EvaluationPeriods: 3
      ComparisonOperator: GreaterThanThreshold
      Threshold: {threshold}
      # No worker writes figures: none runs.
      TreatMissingData: breaching
      AlarmActions: [!Ref Topic]
      OKActions: [!Ref Topic]

",
            name.replace('_', "-"),
            figure.statistic,
        );
    }
    let widgets: Vec<Value> = FIGURES.iter().enumerate().map(|(number, figure)| widget(figure, number)).collect();
    let body = json!({ "widgets": widgets }).to_string();
    let _ = write!(
        out,
        "  FiguresDashboard:
    Type: AWS::CloudWatch::Dashboard
    Condition: HasFigures
    Properties:
      DashboardName: !Sub \"${{AWS::StackName}}-figures\"
      DashboardBody: !Sub '{body}'

"
    );
    out
}

fn widget(figure: &Figure, number: usize) -> Value {
    json!({
        "type": "metric", "x": number * 8, "y": 0, "width": 8, "height": 6,
        "properties": {
            "title": figure.name,
            "region": "${AWS::Region}",
            "stat": figure.statistic,
            "period": 60,
            "metrics": [[NAMESPACE, figure.name, DIMENSION, "${FiguresOf}"]],
        },
    })
}
