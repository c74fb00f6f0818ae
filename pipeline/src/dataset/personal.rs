//! Which names look like personal data.
//!
//! Owns: the list of words. Does not own: what follows from it (`check`).
//!
//! A definition that reads a field with such a name must have a rule for it (`anonymize`) or state that it is harmless
//! (`personal = false`). Otherwise it is refused at start. A list of words finds a forgotten column, not every personal
//! column: the author of the definition remains responsible.

/// Words that make a name look personal wherever they are in it.
const WORDS: [(&str, &str); 37] = [
    ("email", "an e-mail address"),
    ("mail", "an e-mail address"),
    ("phone", "a phone number"),
    ("telephone", "a phone number"),
    ("mobile", "a phone number"),
    ("msisdn", "a phone number"),
    ("fax", "a phone number"),
    ("ip", "an IP address"),
    ("ipv4", "an IP address"),
    ("ipv6", "an IP address"),
    ("address", "an address"),
    ("street", "an address"),
    ("postcode", "a location"),
    ("postal", "a location"),
    ("zip", "a location"),
    ("city", "a location"),
    ("latitude", "a location"),
    ("longitude", "a location"),
    ("birth", "a date of birth"),
    ("birthday", "a date of birth"),
    ("dob", "a date of birth"),
    ("age", "an age"),
    ("gender", "a personal trait"),
    ("surname", "a name"),
    ("firstname", "a name"),
    ("lastname", "a name"),
    ("fullname", "a name"),
    ("username", "a name"),
    ("ssn", "an identity number"),
    ("passport", "an identity number"),
    ("iban", "an account number"),
    ("idfa", "an advertising id"),
    ("gaid", "an advertising id"),
    ("imei", "a device id"),
    ("password", "a secret"),
    ("comment", "free text"),
    ("subject", "free text"),
];

/// Names that are personal as a whole (words joined by `_`), or at the end of a longer name.
const PHRASES: [(&str, &str); 14] = [
    ("user_id", "an identifier of a person"),
    ("client_id", "an identifier of a device"),
    ("cognito_id", "an identifier of a person"),
    ("endpoint_id", "an identifier of a device"),
    ("session_id", "an identifier of a visit"),
    ("device_id", "a device id"),
    ("advertising_id", "an advertising id"),
    ("first_name", "a name"),
    ("last_name", "a name"),
    ("full_name", "a name"),
    ("user_name", "a name"),
    ("user_agent", "a device's fingerprint"),
    ("free_text", "free text"),
    ("user_attributes", "attributes of a person"),
];

/// What a field or column of this name probably contains, if it looks personal.
pub(crate) fn looks_personal(name: &str) -> Option<&'static str> {
    let words = words(name);
    if words.len() == 1 && words[0] == "name" {
        return Some("a name");
    }
    let joined = words.join("_");
    let phrase = PHRASES.iter().find(|(phrase, _)| joined == *phrase || joined.ends_with(&format!("_{phrase}")));
    let word = WORDS.iter().find(|(word, _)| words.iter().any(|candidate| candidate == word));
    phrase.or(word).map(|(_, meaning)| *meaning)
}

/// The words of a name in lower case. It is split at `_`, `-`, `.`, spaces and changes of case (`IPAddress` is `ip`,
/// `address`).
fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words: Vec<String> = vec![String::new()];
    for (at, character) in characters.iter().enumerate() {
        let lower = |index: usize| characters.get(index).is_some_and(|c| c.is_lowercase());
        let hump = character.is_uppercase() && at > 0 && (!characters[at - 1].is_uppercase() || lower(at + 1));
        if !character.is_alphanumeric() || hump {
            words.push(String::new());
        }
        if character.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_names_are_seen_in_every_spelling() {
        for name in ["email", "userEmail", "ip_address", "IPAddress", "User-Id", "UserId", "postal_code", "user_age"] {
            assert!(looks_personal(name).is_some(), "{name}");
        }
    }

    #[test]
    fn harmless_names_are_left_alone() {
        for name in ["message_id", "page", "campaign_name", "score", "shipping", "zipped", "recipe", "language"] {
            assert_eq!(looks_personal(name), None, "{name}");
        }
    }
}
