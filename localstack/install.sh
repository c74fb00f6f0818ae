# Sourced by `run` and `fill`: installs the parts of the local stack, each once, through pip and npm.
#
# Owns: .cache/localstack/ and the pins. A part is installed under another name, and renamed when it is complete, under a lock. So
# two runs never install at once, and an interrupted run leaves nothing that seems to be installed. The name of a part
# contains a hash of its pins: other pins make another folder.

cache="$(cd "$here/.." && pwd)/.cache/localstack"
kinesis_version=0.6.2

# The first interpreter of the given versions that works. (pyenv has shims that don't work for versions that are not selected.)
python_of() {
  local version candidate
  for version in "$@"; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version"*/bin/"python$version"; do
      if "$candidate" -c 'import sys, venv, ensurepip' >/dev/null 2>&1; then
        echo "$candidate"
        return
      fi
    done
  done
  return 1
}

# once FOLDER COMMAND…: unless FOLDER exists, runs `COMMAND FOLDER.making` and renames the result.
once() {
  local folder="$1"
  shift
  [ ! -d "$folder" ] || return 0
  mkdir -p "$cache"
  (
    exec 9>"$cache/install.lock"
    if command -v flock >/dev/null; then flock 9; fi
    [ ! -d "$folder" ] || exit 0
    echo "localstack: installing ${folder##*/} (once)" >&2
    rm -rf "$folder.making"
    # In a subshell, because `set -e` has no effect in the condition of an `if`.
    (set -e; "$@" "$folder.making") >"$cache/install.log" 2>&1 9>&- || {
      tail -n 30 "$cache/install.log" >&2
      echo "localstack: failed to install ${folder##*/}" >&2
      exit 1
    }
    mv "$folder.making" "$folder"
  )
}

hash_of() { cat "$@" | cksum | cut -d ' ' -f 1; }

# A virtual environment can't be moved, because its scripts contain its path. It is created in place, and the folder that is renamed
# only marks it as complete.
make_environment() { # PYTHON ENVIRONMENT [ARGUMENT OF PIP INSTALL…] MARK
  local python="$1" environment="$2" mark="${*: -1}"
  rm -rf "$environment"
  "$python" -m venv "$environment"
  "$environment/bin/pip" install --disable-pip-version-check "${@:3:$#-3}"
  mkdir -p "$mark"
}

# boto3, the KPL's aggregates and moto: for the light stack, and for starting and filling every stack.
install_tools() {
  local python pins="$here/pins-tools.txt"
  python="$(python_of 3.13 3.12 3.11 3.10)" || { echo "localstack: needs Python 3.10 or later" >&2; exit 1; }
  tools="$cache/tools-$(hash_of "$pins")"
  once "$tools.ready" make_environment "$python" "$tools" -r "$pins"
}

# kinesis-local, a stand-in for Kinesis: one npm package without dependencies.
install_kinesis() {
  command -v node >/dev/null && command -v npm >/dev/null || { echo "localstack: needs node and npm" >&2; exit 1; }
  once "$cache/kinesis-$kinesis_version" make_kinesis
}

make_kinesis() {
  mkdir -p "$1"
  npm install --prefix "$1" --no-audit --no-fund "kinesis-local@$kinesis_version"
}

# LocalStack without Docker. 4.14.0 is the last open version; it needs Python 3.13. Of the versions before it, 4.9.2 is the last
# that starts on Python 3.11.
install_localstack() {
  local python version pins="$here/pins-localstack.txt"
  if python="$(python_of 3.13)"; then
    version=4.14.0
  elif python="$(python_of 3.11)"; then
    version=4.9.2
  else
    echo "localstack: LocalStack without Docker needs Python 3.13 or 3.11; --light needs 3.10 or later" >&2
    exit 1
  fi
  localstack="$cache/localstack-$version-$(hash_of "$pins" "$here"/dynamodb_plugin/*.{toml,py})"
  once "$localstack.ready" make_localstack "$python" "$version" "$pins"
  export SHARDLAKE_LOCALSTACK="$localstack"
}

make_localstack() { # PYTHON VERSION PINS MARK
  # pip builds a package in its own folder, and would leave the results there.
  rm -rf "$localstack.plugin"
  mkdir "$localstack.plugin"
  cp "$here"/dynamodb_plugin/*.{toml,py} "$localstack.plugin"
  make_environment "$1" "$localstack" -c "$3" "localstack-core[runtime]==$2" "$localstack.plugin" "$4"
  rm -rf "$localstack.plugin"
}
