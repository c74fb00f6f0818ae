//! Texts in records, in pairs of tables: a plain one, and an unusual one with quotes, backslashes, line breaks, text beyond
//! ASCII and beyond the basic plane. [`super::random::Rng::text`] chooses between the two.
//!
//! The texts are not escaped; [`super::write::Text`] escapes them.

/// What people write under an assessment.
pub(super) const COMMENTS: [&str; 8] = [
    "Took longer than I expected, but the questions were clear.",
    "Please send me the result as a PDF.",
    "I was interrupted by a phone call after question 7 and went on half an hour later.",
    "Good.",
    "The timer did not stop when I paused, so the duration may be too long.",
    "Second attempt, the first one was lost when the app closed. Can both be shown in my profile?",
    "Question 12 shows the same picture as question 11.",
    "none",
];

/// [`COMMENTS`] that a careless reader misreads.
pub(super) const UNUSUAL_COMMENTS: [&str; 8] = [
    "They call it \"skills\", I call it trivia.\nStill: fun.",
    "Pfad war C:\\Users\\muster\\Desktop\\ergebnis.pdf – danke für die schnelle Hilfe!",
    "Très bien fait 👍🏽 mais l'écran «\u{a0}résultats\u{a0}» reste vide 😕",
    "とても良かったです。もう一度受けられますか？",
    "tab\there, quote ' there, {\"json\": [1, 2, {}]} inside, and a backslash at the end \\",
    "Дякую! Все зрозуміло, але шрифт замалий 🔍",
    "nul \u{0} bell \u{7} escape \u{1b}[31mred\u{1b}[0m and a line separator \u{2028} too",
    "مرحبا، الاختبار جيد جدا 🌟 e\u{301} is not é",
];

/// Subjects of e-mails.
pub(super) const SUBJECTS: [&str; 6] = [
    "Your assessment is ready",
    "Your weekly progress",
    "Reminder: finish your skills assessment",
    "Welcome to Compass",
    "Your report for January",
    "New: leadership assessments",
];

/// [`SUBJECTS`] that a careless reader misreads.
pub(super) const UNUSUAL_SUBJECTS: [&str; 4] = [
    "Your \"values\" report is here 🎉",
    "Votre rapport «\u{a0}compétences\u{a0}» est arrivé",
    "Re: C:\\reports\\january",
    "診断結果のお知らせ 📈",
];

/// Screens of the app.
pub(super) const SCREENS: [&str; 7] = [
    "home",
    "assessment/intro",
    "assessment/question",
    "assessment/result",
    "profile",
    "settings/notifications",
    "plans",
];

/// [`SCREENS`] that a careless reader misreads.
pub(super) const UNUSUAL_SCREENS: [&str; 4] =
    ["search?q=\"team lead\"", "ergebnis/übersicht", "deep\\link\\promo", "結果/詳細"];

/// Browsers and mail programs.
pub(super) const USER_AGENTS: [&str; 5] = [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
];

/// Links in e-mails, with query strings such as leak in practice.
pub(super) const LINKS: [&str; 4] = [
    "https://app.example.com/assessments/start?utm_source=email&utm_campaign=reminder",
    "https://app.example.com/report?month=2025-01&format=pdf",
    "https://www.example.com/plans?coupon=SPRING%2025",
    "https://app.example.com/unsubscribe",
];
