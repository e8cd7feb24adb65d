//! `bert-finetune search`: finds the texts of a corpus that are most similar to a query. Every text is compared, one
//! window of the corpus at a time, so that memory use does not depend on the size of the corpus.

use std::path::{Path, PathBuf};

use bert_cli::args::{Common, column_rules, text_column};
use bert_cli::given::Given;
use bert_cli::input::kind::Format;
use bert_cli::input::read_inputs;
use bert_cli::input::source::Input;
use bert_cli::program::print_line;
use bert_model::pipeline::{Combine, Layers, PairScorer, TextEmbedder};
use bert_model::{Error, Result, Workers};
use bert_train::Progress;
use burn::tensor::Device;
use clap::Args;
use serde_json::{Value, json};

use crate::embedder::EmbedderArgs;
use crate::nearest::{Best, Hit, Queries};
use crate::npy::Matrix;
use crate::output::one_line;
use crate::rank::open_scorer;
use crate::truncated::warn_of_comparison;

/// Number of texts to hold in memory at once.
pub(crate) const WINDOW: usize = 4096;

/// Number of hits to rerank for each one that is printed.
const CANDIDATES_PER_HIT: usize = 10;

/// Options of `bert-finetune search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The options given on the command line
    #[command(flatten)]
    pub given: Given,
    /// How texts are embedded; the prompt applies to the queries [default: the model's `query`]
    #[command(flatten)]
    pub embedder: EmbedderArgs,
    /// File of texts to search: .txt (one per line), .jsonl, .csv or .tsv, each also .gz or .zst; -
    /// for stdin
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// Format of the corpus [default: by the file's extension; stdin: txt]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub input_format: Option<Format>,
    /// Text column of tables [default: text]
    #[arg(long, value_name = "COL")]
    pub text: Option<String>,
    /// Tables have no header; columns are numbered from 1
    #[arg(long)]
    pub no_header: bool,
    /// Text to search for
    #[arg(long, value_name = "TEXT", required_unless_present = "queries", conflicts_with = "queries")]
    pub query: Option<String>,
    /// File of texts to search for, in the formats of the corpus
    #[arg(long, value_name = "FILE")]
    pub queries: Option<PathBuf>,
    /// Text column of a table of queries [default: --text]
    #[arg(long, value_name = "COL", requires = "queries")]
    pub queries_text: Option<String>,
    /// Number of hits for each query
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub top_k: usize,
    /// Vectors of the corpus as written by `embed -o FILE.npy`, one per text, in order
    #[arg(long, value_name = "FILE")]
    pub vectors: Option<PathBuf>,
    /// Prepend one of the model's prompts, by name, to each text of the corpus [default: the model's `document`,
    /// `passage` or `corpus`]
    #[arg(long, value_name = "NAME", conflicts_with = "vectors")]
    pub corpus_prompt: Option<String>,
    /// Rescore the best hits with this cross-encoder (a directory, or a name on the Hugging Face Hub), and sort them by
    /// its scores
    #[arg(long, value_name = "DIR")]
    pub rerank: Option<PathBuf>,
    /// Number of hits to rescore with --rerank for each query [default: 10 for each of --top-k]
    #[arg(long, value_name = "N", requires = "rerank")]
    pub candidates: Option<usize>,
    /// Options shared by all commands
    #[command(flatten)]
    pub common: Common,
}

/// Prints the hits of each query, best first.
///
/// # Errors
/// If a model, the device, the texts or the vectors cannot be used.
pub fn run(args: &SearchArgs) -> anyhow::Result<()> {
    check(args)?;
    // The embedder names the device.
    let common = Common { quiet: true, ..args.common.clone() };
    let open = |directory| open_scorer(directory, args.embedder.precision, None, &common);
    let reranker = args.rerank.as_deref().map(open).transpose()?;
    let embedder = args.embedder.open(&Layers::default(), Combine::default(), &args.common)?;
    let queries = read_queries(args)?;
    let mut search = Search::new(args, &embedder, embed_queries(args, &embedder, &queries)?)?;
    search.read_corpus(args)?;
    warn_of_comparison(embedder.truncated_count());
    for (place, (query, best)) in queries.iter().zip(search.best).enumerate() {
        let hits = match &reranker {
            Some(reranker) => rerank(reranker, query, best.into_hits(), args.top_k)?,
            None => best.into_hits(),
        };
        print_hits(args, place, query, hits)?;
    }
    warn_of_comparison(reranker.map_or(0, |reranker| reranker.truncated_count()));
    Ok(())
}

fn corpus(args: &SearchArgs) -> Input {
    Input::new(&args.corpus).in_format(args.input_format)
}

fn check(args: &SearchArgs) -> Result<()> {
    args.embedder.check_one_vector()?;
    let queries = args.queries.as_ref().and_then(|path| Input::new(path).table_format());
    let formats = || [corpus(args).table_format(), queries].into_iter().flatten();
    // The options are for either file.
    let format = formats().find(|format| format.has_header()).or_else(|| formats().find(|format| format.has_columns()));
    args.given.check(&column_rules(true, format, &["text", "no-header"]))?;
    args.given.check(&column_rules(true, queries, &["queries-text"]))?;
    if args.top_k == 0 {
        return Err(Error::Usage("--top-k: found 0, expected at least 1".into()));
    }
    if let Some(candidates) = args.candidates.filter(|candidates| *candidates < args.top_k) {
        return Err(Error::Usage(format!(
            "--candidates: found {candidates}, expected at least --top-k {}",
            args.top_k
        )));
    }
    if args.corpus.as_os_str() == "-" && args.queries.as_ref().is_some_and(|path| path.as_os_str() == "-") {
        return Err(Error::Usage("--queries -: found standard input twice, expected a file for one of the two".into()));
    }
    Ok(())
}

/// Reads the texts of a file. The options for columns are for the file that has columns, if one of the two has none.
fn read_texts(args: &SearchArgs, input: Input, text: Option<&str>) -> Result<impl Iterator<Item = Result<String>>> {
    let format = input.table_format();
    let text = text.filter(|_| format.is_some_and(Format::has_columns));
    let columns = text_column(text, args.no_header && format.is_some_and(Format::has_header))?;
    Ok(read_inputs(input, &columns)?.map(|row| Ok(row?.text)))
}

fn read_queries(args: &SearchArgs) -> Result<Vec<String>> {
    match (&args.query, &args.queries) {
        (_, Some(path)) => {
            let text = args.queries_text.as_ref().or(args.text.as_ref());
            read_texts(args, Input::new(path), text.map(String::as_str))?.collect()
        }
        (query, None) => Ok(query.iter().cloned().collect()),
    }
}

/// Embeds the queries, with the model's query prompt unless another prompt was given.
fn embed_queries(args: &SearchArgs, embedder: &TextEmbedder, queries: &[String]) -> Result<Vec<Vec<f32>>> {
    let is_given = args.embedder.prompt.is_some() || args.embedder.prompt_text.is_some();
    match embedder.description().prompts.query() {
        _ if is_given => embedder.embed(queries),
        prompt => embedder.embed_with_prompt(queries, prompt),
    }
}

/// A search in progress.
struct Search<'a> {
    embedder: &'a TextEmbedder,
    corpus_prompt: String,
    workers: Workers,
    queries: Queries,
    /// The best hits of each query, with their texts.
    best: Vec<Best<String>>,
    limit: usize,
}

impl<'a> Search<'a> {
    fn new(args: &SearchArgs, embedder: &'a TextEmbedder, queries: Vec<Vec<f32>>) -> Result<Self> {
        let limit = match &args.rerank {
            Some(_) => args.candidates.unwrap_or(args.top_k.saturating_mul(CANDIDATES_PER_HIT)),
            None => args.top_k,
        };
        let prompts = &embedder.description().prompts;
        let corpus_prompt = match &args.corpus_prompt {
            Some(name) => prompts.named(name).map_err(|error| Error::Usage(format!("--corpus-{error}")))?,
            None => prompts.document(),
        };
        Ok(Self {
            embedder,
            corpus_prompt: corpus_prompt.into(),
            workers: Workers::for_device(&Device::flex())?,
            best: queries.iter().map(|_| Best::new(limit)).collect(),
            queries: Queries::new(queries, embedder.similarity()),
            limit,
        })
    }

    /// Compares all texts of the corpus with the queries.
    fn read_corpus(&mut self, args: &SearchArgs) -> Result<()> {
        let mut texts = read_texts(args, corpus(args), args.text.as_deref())?;
        let mut vectors = args.vectors.as_deref().map(|path| self.open_vectors(path)).transpose()?;
        let mut progress = Progress::new("searching", vectors.as_ref().map(|v| v.rows as u64), 0, args.common.quiet);
        let mut done = 0;
        loop {
            let window: Vec<String> = texts.by_ref().take(WINDOW).collect::<Result<_>>()?;
            if window.is_empty() {
                break;
            }
            if vectors.as_ref().is_some_and(|matrix| matrix.rows < done + window.len()) {
                done += window.len() + texts.by_ref().count();
                break;
            }
            let found = match &mut vectors {
                Some(matrix) => matrix.next_rows(window.len())?,
                None => self.embedder.embed_with_prompt(&window, &self.corpus_prompt)?.concat(),
            };
            self.compare(found, &window, done);
            done += window.len();
            progress.update(done as u64, "texts");
        }
        progress.finish();
        match (&args.vectors, vectors) {
            (Some(path), Some(matrix)) if matrix.rows != done => {
                let expected = format!("{done}, one for each text of {}", args.corpus.display());
                Err(Error::file(path, format!("{} vectors", matrix.rows), expected))
            }
            _ => Ok(()),
        }
    }

    fn open_vectors(&self, path: &Path) -> Result<Matrix> {
        let matrix = Matrix::open(path)?;
        match self.queries.width() {
            Some(width) if width != matrix.width => {
                let found = format!("vectors with {} dimensions", matrix.width);
                Err(Error::file(
                    path,
                    found,
                    format!("{width}, as in this model's vectors: embed the corpus with this model"),
                ))
            }
            _ => Ok(matrix),
        }
    }

    /// Compares the vectors of a window of texts with every query; `first` is the index of the window's first text.
    fn compare(&mut self, mut vectors: Vec<f32>, texts: &[String], first: usize) {
        let (queries, limit) = (&self.queries, self.limit);
        let least: Vec<f32> = self.best.iter().map(Best::least).collect();
        let rows = texts.len().div_ceil(self.workers.count()).max(1);
        let width = vectors.len() / texts.len().max(1);
        let parts: Vec<&mut [f32]> = vectors.chunks_mut((rows * width).max(1)).collect();
        let found = self.workers.run(parts, |part| queries.compare(part, &least, limit));
        for (part, found) in found.into_iter().enumerate() {
            for (best, found) in self.best.iter_mut().zip(found) {
                for Hit { score, index, .. } in found.into_hits() {
                    let index = part * rows + index;
                    best.offer(score, first + index, || texts[index].clone());
                }
            }
        }
    }
}

/// The best of the hits, rescored by the cross-encoder.
fn rerank(reranker: &PairScorer, query: &str, hits: Vec<Hit<String>>, top_k: usize) -> Result<Vec<Hit<String>>> {
    let pairs: Vec<(&str, &str)> = hits.iter().map(|hit| (query, hit.payload.as_str())).collect();
    let scores = reranker.score(&pairs)?;
    let mut best = Best::new(top_k);
    for (hit, score) in hits.into_iter().zip(scores) {
        best.offer(score, hit.index, || hit.payload);
    }
    Ok(best.into_hits())
}

fn print_hits(args: &SearchArgs, place: usize, query: &str, hits: Vec<Hit<String>>) -> Result<()> {
    if args.common.json {
        let hit = |hit: Hit<String>| json!({"index": hit.index, "text": hit.payload, "score": hit.score});
        let hits: Vec<Value> = hits.into_iter().map(hit).collect();
        return match args.queries.is_some() {
            true => print_line(json!({"row": place + 1, "query": query, "hits": hits})),
            false => print_line(json!({"query": query, "hits": hits})),
        };
    }
    if place > 0 {
        print_line("")?;
    }
    print_line(one_line(query))?;
    hits.iter()
        .try_for_each(|hit| print_line(format_args!("  {:.4}\t{}\t{}", hit.score, hit.index, one_line(&hit.payload))))
}
