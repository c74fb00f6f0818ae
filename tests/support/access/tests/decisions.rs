//! Decisions about requests, and templates with every function that is known.

#![expect(clippy::unwrap_used, reason = "in a test, a failure fails the test")]

use access::{Grant, Policy, Request, Template};
use serde_json::{Value, json};

fn policy(statements: &Value) -> Policy {
    let mut policy = Policy::default();
    policy.add(&json!({ "Version": "2012-10-17", "Statement": statements })).unwrap();
    policy
}

fn request(action: &str, resource: &str, context: &[(&str, &str)]) -> Request {
    let context = context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Request { action: action.to_owned(), resource: resource.to_owned(), context }
}

#[test]
fn a_request_is_allowed_if_a_statement_allows_it_and_none_denies_it() {
    let policy = policy(&json!([
        { "Sid": "a", "Effect": "Allow", "Action": ["s3:GetObject", "s3:Put*"], "Resource": "arn:aws:s3:::b/raw/*" },
        { "Sid": "b", "Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/raw/secret?" },
    ]));
    for (action, resource, expected) in [
        ("s3:GetObject", "arn:aws:s3:::b/raw/x", true),
        ("s3:getobject", "arn:aws:s3:::b/raw/x/y", true),
        ("s3:PutObject", "arn:aws:s3:::b/raw/x", true),
        ("s3:DeleteObject", "arn:aws:s3:::b/raw/x", false),
        ("s3:GetObject", "arn:aws:s3:::b/error/x", false),
        ("s3:GetObject", "arn:aws:s3:::b/raw", false),
        ("s3:GetObject", "arn:aws:s3:::b/raw/secret1", false),
        ("s3:GetObject", "arn:aws:s3:::b/raw/secret12", true),
    ] {
        assert_eq!(policy.allows(&request(action, resource, &[])), expected, "{action} {resource}");
    }
}

#[test]
fn all_conditions_must_hold() {
    let conditions = json!({
        "StringEquals": { "kms:ViaService": ["s3.amazonaws.com", "other"], "aws:PrincipalAccount": "1" },
        "StringLikeIfExists": { "s3:prefix": "raw/*" },
    });
    let policy =
        policy(&json!([{ "Sid": "a", "Effect": "Allow", "Action": "a:B", "Resource": "*", "Condition": conditions }]));
    let via = ("kms:viaservice", "s3.amazonaws.com");
    let account = ("aws:principalaccount", "1");
    for (context, expected) in [
        (vec![via, account], true),
        (vec![via, account, ("s3:prefix", "raw/x")], true),
        (vec![via, account, ("s3:prefix", "error/x")], false),
        (vec![via], false),
        (vec![("kms:viaservice", "s3"), account], false),
    ] {
        assert_eq!(policy.allows(&request("a:B", "x", &context)), expected, "{context:?}");
    }
}

#[test]
fn a_policy_without_one_grant_allows_the_others() {
    let policy = policy(&json!([{
        "Sid": "a", "Effect": "Allow", "Action": ["a:B", "a:C"], "Resource": ["x/*", "y/*"],
    }]));
    assert_eq!(policy.grants().len(), 4);
    let grant = Grant { statement: "a".to_owned(), action: "a:B".to_owned(), resource: "x/*".to_owned() };
    let less = policy.without(&grant);
    assert_eq!(less.grants().len(), 3);
    for (action, resource, expected) in
        [("a:B", "x/1", false), ("a:B", "y/1", true), ("a:C", "x/1", true), ("a:C", "y/1", true)]
    {
        assert_eq!(less.allows(&request(action, resource, &[])), expected, "{action} {resource}");
    }
    assert_eq!(policy.used_by(&request("a:B", "x/1", &[])), [grant].into());
}

#[test]
fn what_is_not_known_is_an_error() {
    for statement in [
        json!({ "Sid": "a", "Effect": "Allow", "NotAction": "a:B", "Resource": "*" }),
        json!({ "Sid": "a", "Effect": "Allow", "Action": "a:B", "Resource": [] }),
        json!({ "Sid": "a", "Action": "a:B", "Resource": "*" }),
        json!({ "Sid": "a", "Effect": "Allow", "Action": "a:B", "Resource": "*", "Condition": { "IpAddress": {} } }),
    ] {
        let document = json!({ "Version": "2012-10-17", "Statement": [statement] });
        assert!(Policy::default().add(&document).is_err(), "{document}");
    }
}

const TEMPLATE: &str = r#"
Parameters:
  Name: {Type: String, Default: the-bucket}
  Extra: {Type: String, Default: "no"}
  Tables: {Type: CommaDelimitedList, Default: ""}
Conditions:
  HasExtra: !Equals [!Ref Extra, "yes"]
  HasTables: !Not [!Equals [!Join ["", !Ref Tables], ""]]
  Both: !And [!Condition HasExtra, !Condition HasTables]
  Any: !Or [!Condition HasExtra, !Condition HasTables]
Resources:
  Key: {Type: A}
  Thing:
    Type: B
    Condition: Any
    Properties:
      Text: !Sub "${Name}-${AWS::Region}-${Key}-${!year}"
      Arn: !GetAtt Key.Arn
      Local: !Sub ["${Value}/${Name}", {Value: !If [Both, both, one]}]
      List:
        - a
        - !If [Both, b, !Ref "AWS::NoValue"]
      Gone: !If [Both, !Ref "AWS::NoValue", kept]
"#;

#[test]
fn a_template_is_resolved_for_its_parameters() {
    let thing = |parameters: &[(&str, &str)]| Template::parse(TEMPLATE, parameters).unwrap().properties("Thing");
    assert!(thing(&[]).unwrap_err().contains("the condition Any"));
    let expected = json!({
        "Text": "the-bucket-us-east-1-Key-${year}", "Arn": "Key.Arn", "Local": "one/the-bucket", "List": ["a"],
        "Gone": "kept",
    });
    assert_eq!(thing(&[("Extra", "yes")]).unwrap(), expected);
    let both = thing(&[("Extra", "yes"), ("Tables", "a,b"), ("Name", "x")]).unwrap();
    assert_eq!((&both["Local"], &both["List"], &both["Gone"]), (&json!("both/x"), &json!(["a", "b"]), &Value::Null));
    assert!(Template::parse(TEMPLATE, &[("Other", "")]).is_err());
    assert!(Template::parse("a: 1\na: 2", &[]).is_err(), "a key that occurs twice");
}
