"""A CloudFormation template, read and resolved as CloudFormation would.

Owns: the short forms of the intrinsic functions that deploy/ uses, conditions and parameters. Does not own: whether a template is
valid (cfn-lint). What only a deployed resource knows (`Ref`, `Fn::GetAtt`) becomes a text with its names.
"""

import re

import yaml

PSEUDO = {"AWS::AccountId": "123456789012", "AWS::Region": "us-east-1", "AWS::Partition": "aws", "AWS::StackName": "shardlake",
          "AWS::URLSuffix": "amazonaws.com"}
NOTHING = object()
# What `Ref` of is an ARN, and what is before the name in one.
NAMED_BY_ARN = {"AWS::IAM::ManagedPolicy", "AWS::SecretsManager::Secret", "AWS::SNS::Topic"}
KINDS_IN_ARNS = {"AWS::Kinesis::Stream": "stream/", "AWS::IAM::Role": "role/", "AWS::IAM::ManagedPolicy": "policy/",
                 "AWS::SecretsManager::Secret": "secret:", "AWS::Logs::LogGroup": "log-group:"}


class _Loader(yaml.SafeLoader):
    pass


def _function(loader, suffix, node):
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


class Template:
    def __init__(self, path, parameters=None):
        self.content = yaml.load(path.read_text(), Loader=_Loader)
        self.resources = self.content["Resources"]
        declared = self.content["Parameters"]
        unknown = set(parameters or {}) - set(declared)
        assert not unknown, f"{path.name} has no parameters {unknown}"
        self.values = dict(PSEUDO)
        for name, parameter in declared.items():
            value = (parameters or {}).get(name, parameter.get("Default", ""))
            pattern = parameter.get("AllowedPattern")
            assert not pattern or not parameters or re.search(pattern, str(value)), f"{name}={value}"
            self.values[name] = str(value).split(",") if parameter["Type"] == "CommaDelimitedList" else str(value)

    def condition(self, name):
        return self._holds(self.content["Conditions"][name])

    def _holds(self, test):
        ((kind, value),) = test.items()
        match kind:
            case "Condition":
                return self.condition(value)
            case "Fn::Equals":
                left, right = map(self.resolve, value)
                return str(left) == str(right)
            case "Fn::Not":
                return not self._holds(value[0])
            case "Fn::And":
                return all(map(self._holds, value))
            case "Fn::Or":
                return any(map(self._holds, value))
        raise AssertionError(f"no such function of conditions: {kind}")

    def resolved(self):
        """The resources whose conditions hold, without functions."""
        return {name: self.resolve(content) for name, content in self.resources.items()
                if "Condition" not in content or self.condition(content["Condition"])}

    def _named(self, name, local=()):
        if name in local:
            return local[name]
        if name in self.values:
            return self.values[name]
        resource, _, attribute = name.partition(".")
        assert resource in self.resources, f"no such parameter or resource: {name}"
        kind = self.resources[resource]["Type"]
        if kind == "AWS::S3::Bucket" and attribute == "Arn":
            return f"arn:aws:s3:::{resource.lower()}"
        if kind == "AWS::IAM::Role" and attribute == "Arn":
            return f"arn:aws:iam::123456789012:role/{resource}"
        if attribute == "Arn" or kind in NAMED_BY_ARN:
            service = kind.split("::")[1].lower()
            return f"arn:aws:{service}:us-east-1:123456789012:{KINDS_IN_ARNS.get(kind, '')}{resource}"
        return resource

    def resolve(self, value):
        if isinstance(value, list):
            items = [self.resolve(item) for item in value]
            return [item for item in items if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((kind, inner),) = value.items()
            match kind:
                case "Ref":
                    return NOTHING if inner == "AWS::NoValue" else self._named(inner)
                case "Fn::GetAtt":
                    return self._named(".".join(inner))
                case "Fn::If":
                    return self.resolve(inner[1] if self.condition(inner[0]) else inner[2])
                case "Fn::Join":
                    return inner[0].join(map(str, self.resolve(inner[1])))
                case "Fn::Sub":
                    text, local = inner if isinstance(inner, list) else (inner, {})
                    local = {name: self.resolve(content) for name, content in local.items()}
                    text = re.sub(r"\$\{([^!}]+)\}", lambda match: str(self._named(match.group(1), local)), text)
                    return text.replace("${!", "${")
            assert not kind.startswith("Fn::"), f"no such function: {kind}"
        entries = ((key, self.resolve(content)) for key, content in value.items())
        return {key: content for key, content in entries if content is not NOTHING}
