//! The built-in sample corpus: an invented world and a grammar that describes it, written for this
//! project.
//!
//! Four countries with cities, languages, rivers and dishes; people with trades, tools and
//! workplaces; and reviews of inns, each consistently positive or negative. The facts are the same
//! in all documents, while people and visits vary. So a model that has read some documents can fill
//! masks in others, and learns which words are positive or negative, which the sample task of
//! `bert-finetune` then tests.

use bert_model::BertConfig;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A country and what belongs to it.
struct Country {
    name: &'static str,
    language: &'static str,
    river: &'static str,
    dish: &'static str,
    cities: [&'static str; 3],
}

const COUNTRIES: [Country; 4] = [
    Country {
        name: "Norland",
        language: "Norish",
        river: "Skell",
        dish: "barley soup",
        cities: ["Tavik", "Holmar", "Brekka"],
    },
    Country {
        name: "Verdania",
        language: "Verdan",
        river: "Amaro",
        dish: "olive bread",
        cities: ["Calvora", "Sorella", "Lunetta"],
    },
    Country {
        name: "Kazuria",
        language: "Kazur",
        river: "Ozhan",
        dish: "plum dumplings",
        cities: ["Zarkent", "Ulbagar", "Nurabad"],
    },
    Country {
        name: "Oceana",
        language: "Lagoon",
        river: "Mahina",
        dish: "coconut fish",
        cities: ["Kaimana", "Tuvolo", "Palemo"],
    },
];

/// A trade: person, tool, product, workplace.
const TRADES: [(&str, &str, &str, &str); 6] = [
    ("baker", "oven", "loaves", "bakery"),
    ("smith", "hammer", "horseshoes", "forge"),
    ("tailor", "needle", "coats", "workshop"),
    ("painter", "brush", "portraits", "studio"),
    ("gardener", "spade", "roses", "garden"),
    ("fisher", "net", "herrings", "harbour"),
];

/// First names. The last of each list appears only as a guest of inns: the corpus never says where
/// Wanda and Viktor live or what they do.
const WOMEN: [&str; 9] = ["Anna", "Berta", "Clara", "Dora", "Elsa", "Frida", "Greta", "Hanna", "Wanda"];
const MEN: [&str; 9] = ["Anton", "Bruno", "Carlo", "David", "Emil", "Felix", "Georg", "Hugo", "Viktor"];

/// Positive adjectives; each has a negative counterpart at the same index of [`BLAME`].
pub const PRAISE: [&str; 10] =
    ["wonderful", "charming", "delicious", "lovely", "excellent", "superb", "cosy", "perfect", "fresh", "warm"];
/// Negative adjectives; see [`PRAISE`].
pub const BLAME: [&str; 10] =
    ["terrible", "dreadful", "disgusting", "shabby", "ugly", "miserable", "draughty", "broken", "stale", "cold"];

/// The subjects of reviews.
pub const SUBJECTS: [&str; 6] = ["soup", "room", "bed", "service", "breakfast", "music"];

/// The sample's model: BERT-tiny without dropout, since it cannot overfit so small a world, and
/// with initial weights of about 1 / √128 instead of 0.02, with which attention starts to learn
/// within minutes.
pub fn config() -> BertConfig {
    let tiny = BertConfig::named("tiny").unwrap_or_default().without_dropout();
    BertConfig { initializer_range: 0.08, classifier_dropout: None, ..tiny }
}

/// Generates the corpus: `documents` documents, one sentence per line, an empty line after each.
pub fn corpus(documents: usize, seed: u64) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..documents).map(|_| document(&mut rng).join("\n") + "\n\n").collect()
}

/// Short texts to complete, each with the word at its `[MASK]`. The corpus lets a reader infer the
/// answers but contains none of the texts: it says nothing about the lives of Wanda and Viktor.
pub fn questions() -> Vec<(String, &'static str)> {
    let [norland, verdania, kazuria, oceana] = &COUNTRIES;
    let home = |name: &str, country: &Country, city: usize| {
        format!("{name} lives in {}, a city in {} on the {}.", country.cities[city], country.name, country.river)
    };
    let [(baker, oven, loaves, bakery), (smith, hammer, horseshoes, forge), ..] = TRADES;
    vec![
        (format!("Wanda lives in {}, a city in [MASK] on the {}.", norland.cities[2], norland.river), norland.name),
        (format!("Wanda lives in {}, a city in {} on the [MASK].", kazuria.cities[1], kazuria.name), kazuria.river),
        (format!("{} in {} people speak [MASK].", home("Viktor", verdania, 2), verdania.name), verdania.language),
        (
            format!(
                "{} in {} people speak {} and eat coconut [MASK].",
                home("Viktor", oceana, 2),
                oceana.name,
                oceana.language
            ),
            "fish",
        ),
        (
            format!("Wanda is a [MASK] and speaks Norish. in the {bakery} the {baker} makes {loaves} with the {oven}."),
            baker,
        ),
        (
            format!(
                "Viktor is a {smith} and speaks Lagoon. in the {forge} the {smith} makes {horseshoes} with the [MASK]."
            ),
            hammer,
        ),
        (
            "Wanda stayed at the inn of Holmar. she praised the soup, for it was delicious and warm. \
             the bed was lovely and the room was cosy, and she [MASK]."
                .into(),
            "smiled",
        ),
        (
            "Viktor stayed at the inn of Holmar. he scolded the soup, for it was stale and cold. \
             the bed was broken and the room was shabby, and he [MASK]."
                .into(),
            "frowned",
        ),
    ]
}

fn document(rng: &mut ChaCha8Rng) -> Vec<String> {
    match rng.random_range(0..10) {
        0..4 => life(rng),
        4..5 => journey(rng),
        _ => review(rng),
    }
}

/// A random person, one of the first `known` of either list, with the pronoun for the document.
fn person(known: usize, rng: &mut ChaCha8Rng) -> (&'static str, &'static str) {
    match rng.random_bool(0.5) {
        true => (pick(&WOMEN[..known], rng), "she"),
        false => (pick(&MEN[..known], rng), "he"),
    }
}

fn pick<T: Copy>(items: &[T], rng: &mut ChaCha8Rng) -> T {
    items[rng.random_range(0..items.len())]
}

/// Where a person lives and what they do.
fn life(rng: &mut ChaCha8Rng) -> Vec<String> {
    let (name, _) = person(WOMEN.len() - 1, rng);
    let country = &COUNTRIES[rng.random_range(0..COUNTRIES.len())];
    let city = pick(&country.cities, rng);
    let (trade, tool, product, place) = pick(&TRADES, rng);
    let mut sentences = vec![
        format!("{name} lives in {city}, a city in {} on the {}.", country.name, country.river),
        format!("in {} people speak {} and eat {}.", country.name, country.language, country.dish),
        format!("{name} is a {trade} and speaks {}.", country.language),
        format!("in the {place} the {trade} makes {product} with the {tool}."),
        format!("{name} sells {product} in {city} and swims in the {}.", country.river),
    ];
    // Keep the first sentence, and a random selection of the others.
    let told = rng.random_range(3..=sentences.len());
    while sentences.len() > told {
        sentences.remove(rng.random_range(1..sentences.len()));
    }
    sentences
}

/// A trip from one country to another.
fn journey(rng: &mut ChaCha8Rng) -> Vec<String> {
    let (name, pronoun) = person(WOMEN.len() - 1, rng);
    let from = rng.random_range(0..COUNTRIES.len());
    let to = (from + rng.random_range(1..COUNTRIES.len())) % COUNTRIES.len();
    let (from, to) = (&COUNTRIES[from], &COUNTRIES[to]);
    let (home, goal) = (pick(&from.cities, rng), pick(&to.cities, rng));
    let (trade, _, product, _) = pick(&TRADES, rng);
    vec![
        format!("{name}, a {trade} from {home} in {}, travels to {goal}.", from.name),
        format!("{goal} is a city in {} on the {}.", to.name, to.river),
        format!("at home {pronoun} speaks {}, but in {goal} people speak {}.", from.language, to.language),
        format!("in {goal} {name} sells {product} and eats {}.", to.dish),
    ]
}

/// A night at an inn, consistently good or bad.
fn review(rng: &mut ChaCha8Rng) -> Vec<String> {
    let (name, pronoun) = person(WOMEN.len(), rng);
    let city = pick(&COUNTRIES[rng.random_range(0..COUNTRIES.len())].cities, rng);
    let is_good = rng.random_bool(0.5);
    let (words, [judged, looked, mood, again]) = match is_good {
        true => (&PRAISE, ["praised", "smiled", "happy", "will gladly come back"]),
        false => (&BLAME, ["scolded", "frowned", "angry", "will never come back"]),
    };
    let mut subjects: Vec<&str> = SUBJECTS.sample(rng, 3).copied().collect();
    let mut subject = || subjects.pop().unwrap_or(SUBJECTS[0]);
    let (first, second, third) = (subject(), subject(), subject());
    let mut word = || pick(words, rng);
    vec![
        format!("{name} stayed at the inn of {city}."),
        format!("{pronoun} {judged} the {first}, for it was {} and {}.", word(), word()),
        format!("the {second} was {} and the {third} was {}, and {pronoun} {looked}.", word(), word()),
        format!("so {pronoun} was very {mood}, and {pronoun} {again}."),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_tells_the_same_stories() {
        assert_eq!(corpus(20, 1), corpus(20, 1));
        assert_ne!(corpus(20, 1), corpus(20, 2));
    }

    #[test]
    fn the_corpus_tells_nothing_of_the_lives_of_the_people_in_the_questions() {
        let corpus = corpus(4000, 42);
        for name in ["Wanda", "Viktor"] {
            for fact in ["lives", "is a", "sells", ", a "] {
                assert!(!corpus.contains(&format!("{name} {fact}")), "{name} {fact}");
            }
            assert!(corpus.contains(&format!("{name} stayed")));
        }
        assert!(questions().iter().all(|(question, _)| question.contains("Wanda") || question.contains("Viktor")));
    }
}
