"""Every task, learner, metric, explainer, study and reader by name. Plain data: importing it imports no room.

Other packages add theirs through the entry-point group ``elsewhere``: each entry names a mapping
``{kind: {name: Entry}}`` in a module that imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from elsewhere.errors import UserError, did_you_mean

KINDS = ("learners", "tasks", "metrics", "explainers", "studies", "readers", "networks")


@dataclass(frozen=True)
class Option:
    """An option of a reader or an explainer on the command line."""

    name: str
    type: Literal["text", "list", "int", "float", "flag"]
    help: str


@dataclass(frozen=True)
class Entry:
    """What a name stands for: ``module:attribute`` (a study: ``package:file.toml``), one line of help, options.

    Readers: ``takes``, the endings of the paths they read ("/": folders); ``source``, what makes a source to fit on of a path; ``new``,
    what makes data of a path for a fitted model (path, what the model remembers). ``target`` makes the task function.
    ``asks`` are options of ``elsewhere predict`` that its ``new`` takes; where one is given no path is needed.
    ``objects`` are classes of Python objects that it reads too; ``also`` are endings that it reads where the option
    ``asked_by`` is given: a table of nodes is a table until its edges are named.
    """

    target: str
    help: str
    options: tuple[Option, ...] = ()
    takes: tuple[str, ...] = ()
    source: str = ""
    new: str = ""
    objects: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    asked_by: str = ""
    asks: tuple[Option, ...] = ()


_TABLE_OPTIONS = (
    Option("predict", "text", "the column to predict, or a comparison: 'income > 50000'"),
    Option("domain", "text", "the column that says where a row comes from"),
    Option("source", "list", "train in this domain and judge in every other; given twice: each in turn"),
    Option("protocol", "text", "leave-one-out, one-to-all or past-to-future"),
    Option("period", "text", "the domain is time: year, quarter, month, week, day, or a width for numbers"),
    Option("cut", "text", "the first period that is judged and not trained on; default: after 60 % of them"),
    Option("features", "list", "only these columns are features"),
    Option("exclude", "list", "these columns are no features"),
    Option("unit", "text", "column of what is never split: a patient, a writer"),
    Option("group", "text", "column of people compared for fairness"),
    Option("weight", "text", "column of weights, used by metrics and by learners that can"),
    Option("id", "text", "column that names a row"),
    Option("kind", "text", "classification or regression; told from the column if not given"),
    Option("home-share", "float", "share of the source held out as home; default 0.25 for tables, 0.1 for pictures"),
    Option("unlabelled", "flag", "grant data of every domain elsewhere, without labels, to learners that ask for it"),
)

_FOLDER_OPTIONS = (
    Option("source", "list", "train in this domain and judge in every other; given twice: each in turn"),
    Option("protocol", "text", "leave-one-out, one-to-all or past-to-future"),
    Option("side", "int", "pictures become side × side; default 64"),
    Option("levels", "int", "folders that name a domain: 2 for <view>/<year>/<class>; default 1"),
    Option("classes", "text", "same (an error where a domain lacks a class), shared (those that all have) or any"),
    Option("columns", "text", "a CSV beside the pictures: file, unit, group"),
    Option("corruptions", "list", "common corruptions of home as stress domains: names, or all"),
    Option("severities", "list", "of the corruptions, 1 to 5; default 1,3,5"),
    Option("attacks", "flag", "also measure accuracy under adversarial attacks (long)"),
    Option("factors", "text", "a CSV beside the pictures: file, factor1, factor2, …: hold out parts of the grid of factors"),
    Option("split", "list", "of the factors: random, composition, interpolation, extrapolation; default: each"),
    Option("kept", "list", "factors that are never held out"),
    Option("categorical", "list", "factors whose values have no order"),
    Option("home-share", "float", "share of the source held out as home; default 0.25 for tables, 0.1 for pictures"),
    Option("unlabelled", "flag", "grant data of every domain elsewhere, without labels, to learners that ask for it"),
)

_GRAPH_OPTIONS = (
    Option("edges", "text", "links of a table of nodes: a file whose first two columns name nodes"),
    Option("texts", "text", "a file with the text of node i on line i, beside an .npz"),
    Option("text", "text", "a column of raw text instead of features"),
    Option("share", "float", "share of nodes that are isolated, those with the fewest links; default 0.1"),
    Option("labels-per-class", "int", "labelled nodes of each class; default: half of the linked nodes are labelled"),
    Option("labelled", "float", "share of the linked nodes that are labelled; default 0.5"),
    *(o for o in _TABLE_OPTIONS if o.name in ("predict", "id", "unit", "features", "exclude")),
)

_INTERVENTION_OPTIONS = (
    Option("intervention", "text", "the column that says what was done in a row; empty: nothing; several names joined by '+'"),
    *(o for o in _TABLE_OPTIONS if o.name in ("features", "exclude", "home-share")),
)

_ASKS = (
    Option("do", "text", "what happens if these interventions are done together? names joined by commas; no data needed"),
    Option("size", "int", "rows to draw for --do [default: 1000]"),
    Option("seed", "int", "of the draw for --do [default: 0]"),
    Option("strength", "float", "factor of what the interventions of --do shift [default: 1]"),
)

_CATALOGUE: dict[str, dict[str, Entry]] = {
    "learners": {
        "prior": Entry("elsewhere.tables.learners:Prior", "the class shares (or mean) of the source, whatever the input"),
        "logistic-regression": Entry("elsewhere.tables.learners:LogisticRegression", "logistic regression"),
        "ridge-regression": Entry("elsewhere.tables.learners:RidgeRegression", "ridge regression"),
        "random-forest": Entry("elsewhere.tables.learners:RandomForest", "random forest"),
        "boosting": Entry("elsewhere.tables.learners:Boosting", "histogram gradient boosting"),
        "nearest-neighbours": Entry("elsewhere.tables.learners:NearestNeighbours", "nearest neighbours on standardised features"),
        "mlp": Entry("elsewhere.nn.learners:Mlp", "a multilayer perceptron, on tables, vectors and pictures"),
        "linear-probe": Entry("elsewhere.nn.probe:LinearProbe", "a linear head on frozen features: inputs, principal components, random or published networks"),
        "temperature-scaled": Entry("elsewhere.nn.combined:TemperatureScaled", "a learner whose logits are scaled by the source's validation part: base"),
        "ensemble": Entry("elsewhere.nn.combined:Ensemble", "the mean of a learner's probabilities over several seeds: base, members"),
        "module": Entry("elsewhere.nn.learners:Module", "any torch module, from Python: wrap(module)"),
        "cnn": Entry("elsewhere.images.learners:Cnn", "a small convolutional network"),
        "coordconv": Entry("elsewhere.images.learners:CoordConv", "a convolutional network that sees coordinates"),
        "coordinate-mlp": Entry("elsewhere.images.learners:CoordinateMlp", "a perceptron on each pixel's value and place, averaged"),
        "rotation-equivariant": Entry("elsewhere.images.learners:RotationEquivariant", "a convolutional network to which quarter turns are the same"),
        "spatial-transformer": Entry("elsewhere.images.learners:SpatialTransformer", "a convolutional network that first aligns the picture"),
        "beta-vae": Entry("elsewhere.images.disentanglement:BetaVae", "β-VAE and a read-out of its code"),
        "ada-gvae": Entry("elsewhere.images.disentanglement:AdaGvae", "Ada-GVAE: weakly supervised by pairs of images, and a read-out"),
        "slow-vae": Entry("elsewhere.images.disentanglement:SlowVae", "SlowVAE: neighbouring images, sparse steps, and a read-out"),
        "pcl": Entry("elsewhere.images.disentanglement:Pcl", "permutation-contrastive learning of neighbouring images, and a read-out"),
        "ridge-readout": Entry("elsewhere.explain.ridge_readout:RidgeReadout", "ridge regression on one-hot labels, of inputs or random features, in closed form"),
        "linear-quadratic": Entry("elsewhere.explain.linear_quadratic:LinearQuadratic", "a network linearised at its weights and fitted in closed form: base, layers, project"),
        "reweighted": Entry("elsewhere.explain.curated:Reweighted", "a learner with the weights that the dataset derivative advises: base, judge"),
        "dropped": Entry("elsewhere.explain.curated:Dropped", "a learner without the examples that hurt: base, by, fraction, judge"),
        "extended": Entry("elsewhere.explain.curated:Extended", "a learner on a core domain and what helps it of the others: base, core"),
        "only-from": Entry("elsewhere.explain.curated:OnlyFrom", "a learner on one domain of the source alone: base, domain"),
        "parity-regularised": Entry("elsewhere.fairness.regularised:ParityRegularised", "a network whose training keeps groups' mean scores alike: penalty, criterion"),
        "two-heads": Entry("elsewhere.fairness.two_heads:TwoHeads", "one output for the label, one for the group, merged at a slack of the disparity"),
        "merged": Entry("elsewhere.fairness.two_heads:Merged", "two heads folded into one: base, slack"),
        "group-thresholds": Entry("elsewhere.fairness.baselines:GroupThresholds", "one threshold a group on a learner's scores: base, ratio, predicted"),
        "massaged": Entry("elsewhere.fairness.baselines:MassagedLabels", "a learner on as few changed labels as parity takes: base"),
        "reweighed": Entry("elsewhere.fairness.baselines:Reweighed", "a learner with weights under which label and group are independent: base"),
        "fairlearn": Entry("elsewhere.fairness.through_fairlearn:FairlearnLearner", "fairlearn's mitigators: method, criterion"),
        "probe": Entry("elsewhere.learner:Probe", "any encoder with any head on what it represents: encoder, head"),
        "erm": Entry("elsewhere.adapt.erm:Erm", "a network on as many examples of each domain: the bar for the next ones"),
        "coral": Entry("elsewhere.adapt.coral:Coral", "means and covariances of the domains' features kept equal"),
        "mmd": Entry("elsewhere.adapt.mmd:Mmd", "distributions of the domains' features kept equal, by kernels"),
        "irm": Entry("elsewhere.adapt.irm:Irm", "one head that is optimal in every domain"),
        "vrex": Entry("elsewhere.adapt.vrex:VRex", "the same risk in every domain"),
        "group-dro": Entry("elsewhere.adapt.group_dro:GroupDro", "the domain with the largest loss weighs most"),
        "mixup": Entry("elsewhere.adapt.mixup:Mixup", "examples of two domains mixed"),
        "dann": Entry("elsewhere.adapt.dann:Dann", "features from which a discriminator cannot tell the domain"),
        "cdann": Entry("elsewhere.adapt.rivals:Cdann", "dann whose discriminator also sees the predicted classes"),
        "adda": Entry("elsewhere.adapt.rivals:Adda", "unlabelled domains made to look like the source to a discriminator"),
        "mdd": Entry("elsewhere.adapt.rivals:Mdd", "a second predictor agrees at home and disagrees elsewhere; features leave it no room"),
        "graph-relational": Entry("elsewhere.adapt.graph_relational:GraphRelational", "domains linked in a graph are aligned, strangers need not be"),
        "linear-windows": Entry("elsewhere.adapt.linear_windows:LinearWindows", "least squares from the inputs of a window to its outputs"),
        "swad": Entry("elsewhere.adapt.swad:Swad", "weights averaged over a valley of the validation loss"),
        "fine-tune": Entry("elsewhere.images.learners:FineTune", "a published backbone, trained whole or its head alone"),
        "gcn": Entry("elsewhere.graphs.learners:Gcn", "a graph convolutional network"),
        "graph-sage": Entry("elsewhere.graphs.learners:GraphSage", "GraphSAGE with the mean of neighbours"),
        "sgc": Entry("elsewhere.graphs.learners:Sgc", "simple graph convolution: features spread over links, then linear"),
        "structural-gcn": Entry("elsewhere.graphs.learners:StructuralGcn", "a GCN with a free row for each node: the teacher of cold-brew"),
        "label-propagation": Entry("elsewhere.graphs.label_propagation:LabelPropagation", "labels spread over links, features unused"),
        "cold-brew": Entry("elsewhere.graphs.cold_brew:ColdBrew", "a student of a graph network for nodes without neighbours"),
        "neighborhood-prediction": Entry(
            "elsewhere.graphs.neighborhood_prediction:NeighborhoodPrediction", "an encoder of text or features that learns which nodes a node links to; in study files before a head: probe"
        ),
        "link-prediction": Entry("elsewhere.graphs.link_prediction:LinkPrediction", "the same encoder taught by single links: the foil"),
        "deepwalk": Entry("elsewhere.graphs.link_prediction:DeepWalk", "random walks and skip-gram; it knows links alone"),
        "tfidf": Entry("elsewhere.graphs.text:Tfidf", "TF-IDF of texts or words, for probe: components"),
        "cold-links": Entry("elsewhere.graphs.cold_links:ColdLinks", "cold-brew for links: which nodes will a node without links link to"),
        "link-gcn": Entry("elsewhere.graphs.cold_links:LinkGcn", "a graph network whose products score links: the teacher of cold-links"),
        "glnn": Entry("elsewhere.graphs.distilled:Glnn", "a perceptron taught by a graph network"),
        "graph-mlp": Entry("elsewhere.graphs.distilled:GraphMlp", "a perceptron whose embeddings of near nodes are pulled together"),
        "tune-up": Entry("elsewhere.graphs.distilled:TuneUp", "a GCN tuned on nodes with most of their links dropped"),
        "linear-interventional": Entry("elsewhere.causal.linear_interventional:LinearInterventional", "causal latents and their graph from one intervention on each, linear mixing, closed form"),
        "contrastive-interventional": Entry("elsewhere.causal.contrastive_interventional:ContrastiveInterventional", "the same behind any injective mixing, by telling environments apart"),
        "intervention-extrapolation": Entry("elsewhere.causal.intervention_extrapolation:InterventionExtrapolation", "the outcome of actions stronger than any that was tried"),
        "binary-interactions": Entry("elsewhere.causal.binary_interactions:BinaryInteractions", "variables that unknown actions touch now and then, from steps (BISCUIT)"),
        "identifiable-vae": Entry("elsewhere.causal.identifiable_vae:IdentifiableVae", "an autoencoder whose prior depends on the environment (iVAE)"),
        "weak-pairs": Entry("elsewhere.causal.weak_pairs:WeakPairs", "independent latents from pairs that share some of them (Ada-GVAE)"),
        "multi-view": Entry("elsewhere.causal.multi_view:MultiView", "the blocks of latents that subsets of views share"),
        "contrastive-inversion": Entry("elsewhere.causal.multi_view:ContrastiveInversion", "all latents from near pairs of full views"),
        "autoencoder": Entry("elsewhere.causal.weak_pairs:Autoencoder", "an autoencoder of vectors or pictures; beta=0: a plain one"),
        "principal-components": Entry("elsewhere.causal.baselines:PrincipalComponents", "principal components as latents: latents"),
        "independent-components": Entry("elsewhere.causal.baselines:IndependentComponents", "independent components as latents: latents"),
        "additive-interventions": Entry("elsewhere.causal.baselines:AdditiveInterventions", "effects of single interventions on mean and covariance, added up"),
        "nearest-intervention": Entry("elsewhere.causal.baselines:NearestIntervention", "one of the single interventions stands for the combination"),
        "no-change": Entry("elsewhere.causal.baselines:NoChange", "nothing happens, whatever is done"),
        "conditional-gaussian": Entry("elsewhere.causal.baselines:ConditionalGaussian", "a black box from what is done to a normal distribution"),
        "from-factors": Entry("elsewhere.causal.from_factors:FromFactors", "a causal encoder on images of known factors: encoder, size, everywhere"),
        "read-out": Entry("elsewhere.causal.read_out:ReadOut", "true variables read off an encoder, and under interventions: encoder, head, rule"),
        "random-direction": Entry("elsewhere.tables.worlds:RandomDirection", "a linear classifier at an angle from the best one, for worlds with a known line"),
        "given": Entry("elsewhere.tables.learners:Given", "a model you already have: a column of its predictions, judged without training"),
    },
    "tasks": {
        "digits/shifts": Entry("elsewhere.images.tasks:digits_shifts", "scikit-learn's digits, at home and under seven shifts of five severities"),
        "handwriting": Entry("elsewhere.images.tasks:handwriting", "digits of five groups of writers: trained on one, judged on all (data root or the original files)"),
        "torchvision": Entry("elsewhere.images.sets:torchvision", "one of torchvision's sets and common corruptions of it: name, path, side, corruptions, severities"),
        "cifar10-small": Entry("elsewhere.images.sets:cifar10_small", "small photographs at home and under common corruptions (data root)"),
        "wilds": Entry("elsewhere.images.sets:wilds", "a set of WILDS with its official splits, by its own package: name, path, side"),
        "image-folder": Entry("elsewhere.images.folders:image_folder", "a folder of pictures, for study files: path, source or leave_out, side, corruptions"),
        "sprites": Entry("elsewhere.images.factor_tasks:sprites", "drawn sprites of known factors: random, composition, interpolation, extrapolation"),
        "rooms": Entry("elsewhere.images.factor_tasks:rooms", "drawn rooms with the factors of Shapes3D, the same four splits"),
        "dsprites": Entry("elsewhere.images.factor_tasks:dsprites", "dSprites from its published file (data root, or path=)"),
        "shapes3d": Entry("elsewhere.images.factor_tasks:shapes3d", "Shapes3D from its published file (data root, or path=)"),
        "mpi3d": Entry("elsewhere.images.factor_tasks:mpi3d", "MPI3D from its published file (data root, or path=)"),
        "celebglow": Entry("elsewhere.images.factor_tasks:celebglow", "CelebGlow from an array of its images (data root, or path=)"),
        "factor-table": Entry("elsewhere.images.factor_tasks:factor_table", "a folder of images and a CSV of their factors: folder, table, kept, categorical"),
        "table": Entry("elsewhere.tables.tasks:table", "a table of one's own, for study files: path, predict, domain, and source, leave_out or cut"),
        "penguins": Entry("elsewhere.tables.tasks:penguins", "Palmer penguins: female or male, across species"),
        "heart-hospitals": Entry("elsewhere.tables.tasks:heart_hospitals", "heart disease in four hospitals (data root or the UCI files)"),
        "celeba": Entry("elsewhere.images.people:celeba", "attributes of CelebA's faces, an attribute as the group: predict, group, domain (data root)"),
        "fairface": Entry("elsewhere.images.people:fairface", "ages of FairFace's faces, gender or race as the group: below, group, domain (data root)"),
        "acs-income": Entry("elsewhere.tables.tasks:acs_income", "income above 50,000 dollars, census microdata as folktables has them: source, group (data root)"),
        "adult": Entry("elsewhere.tables.tasks:adult", "census income in 1994, sex as the group; elsewhere: another workclass, say (data root)"),
        "acs-wages": Entry("elsewhere.tables.tasks:acs_wages", "wages above 35,000 dollars across US states (data root)"),
        "domain-graph/dg15": Entry("elsewhere.adapt.graph_tasks:dg15", "15 domains on half a turn, linked by nearness, 6 with labels (data root)"),
        "domain-graph/dg60": Entry("elsewhere.adapt.graph_tasks:dg60", "60 generated domains on a full turn, 6 with labels"),
        "domain-graph/spirals": Entry("elsewhere.adapt.graph_tasks:spiral_task", "the same with any number of domains and any turn"),
        "domain-graph/tpt48": Entry("elsewhere.adapt.graph_tasks:tpt48", "monthly temperatures of 48 neighbouring states, half of them with labels (data root)"),
        "domain-graph/rotated-digits": Entry("elsewhere.adapt.graph_tasks:rotated_digits_chain", "digits turned more and more: a chain of domains, labels at one end"),
        "citations/cora": Entry("elsewhere.graphs.tasks:cora", "papers and citations: head, tail and isolated nodes (data root)"),
        "graphs/cora-cold": Entry("elsewhere.graphs.tasks:cora_cold", "the same, a random tenth isolated; rewire=true draws the links anew (data root)"),
        "wikipedia/chameleon": Entry("elsewhere.graphs.tasks:chameleon", "Wikipedia pages, traffic in fifths: head, tail and isolated nodes (data root)"),
        "wikipedia/squirrel": Entry("elsewhere.graphs.tasks:squirrel", "Wikipedia pages, traffic in fifths: head, tail and isolated nodes (data root)"),
        "facebook-pages": Entry("elsewhere.graphs.tasks:facebook_pages", "pages by kind, names or words: head, tail and isolated nodes (data root)"),
        "twitch-users": Entry("elsewhere.graphs.tasks:twitch_users", "six countries, one friendship graph each: trained in one, judged in all (data root)"),
        "graphs/homophily": Entry("elsewhere.graphs.tasks:homophily", "a generated graph of set homophily and signal of features"),
        "graphs/neighbours": Entry("elsewhere.graphs.tasks:neighbours", "which nodes will a node without links link to: of (data root)"),
        "graphs/topics": Entry("elsewhere.graphs.tasks:topics", "generated nodes with words of topics, linked within them"),
        "graph": Entry("elsewhere.graphs.reader:graph_file", "a graph of one's own, for study files: path, edges, predict, share, labels_per_class"),
        "ogb": Entry("elsewhere.graphs.tasks:ogb", "a graph of the Open Graph Benchmark, by its own package: name, path"),
        "pyg": Entry("elsewhere.graphs.tasks:pyg", "a graph of torch_geometric.datasets: name, subset, path"),
        "digits/noisy": Entry("elsewhere.explain.digit_tasks:noisy", "digits with wrong labels in the source: noise, kind, clean"),
        "digits/shifted": Entry("elsewhere.explain.digit_tasks:shifted", "five transformed source domains and a shifted target with a few labels"),
        "digits/pool": Entry("elsewhere.explain.digit_tasks:pool", "a small core and a pool to add from"),
        "digits/rotated": Entry("elsewhere.explain.digit_tasks:rotated", "five angles, one with wrong labels, judged at an unseen angle"),
        "faces-lite": Entry("elsewhere.fairness.faces:faces_lite", "drawn faces of two groups: is one smiling? the cue of the group is weaker, or turned round, elsewhere"),
        "causal/unseen-pairs": Entry("elsewhere.causal.tasks:unseen_pairs", "trained on single interventions, asked about pairs and doubled strength: n, d, size"),
        "interventions": Entry("elsewhere.causal.reader:interventions", "a table of interventions of one's own, for study files: path, intervention"),
        "causal/linear": Entry("elsewhere.causal.tasks:linear_task", "latents behind a linear mixing: n, d, size, shifts, soft, break_with"),
        "causal/nonlinear": Entry("elsewhere.causal.tasks:nonlinear_task", "latents behind a perceptron: n, d, size, hidden, layers"),
        "light-tunnel": Entry("elsewhere.causal.tasks:light_tunnel_task", "a real system of lamp and polarisers with five known variables: path, images (data root)"),
        "causal/actions": Entry("elsewhere.causal.tasks:actions", "trained on weak actions, asked for the outcome of strong ones: n, k, d, oracle"),
        "causal/views": Entry("elsewhere.causal.tasks:views", "three views of four latents: which block do they share?"),
        "causal/box": Entry("elsewhere.causal.tasks:box", "near pairs of latents in a box: n, deviation, p"),
        "causal/transitions": Entry("elsewhere.causal.tasks:steps", "a system that actions touch one variable at a time: n, size"),
        "balls/pairs": Entry("elsewhere.causal.scene_tasks:ball_pairs", "pairs of pictures of balls that share some coordinates"),
        "balls": Entry("elsewhere.causal.scene_tasks:balls_task", "pictures of coloured balls on a grid: random, composition, interpolation, extrapolation"),
        "bench": Entry("elsewhere.causal.scene_tasks:bench_task", "pictures of a lamp behind two polarisers: the same four splits, noise"),
        "balls/interventions": Entry("elsewhere.causal.scene_tasks:balls_interventions", "pictures of balls whose coordinates cause one another: single interventions, then pairs"),
        "bench/interventions": Entry("elsewhere.causal.scene_tasks:bench_interventions", "the same on the optical bench, with sensor noise: noise"),
        "pendulum": Entry("elsewhere.causal.scene_tasks:pendulum_task", "pictures of a pendulum, a light and its shadow, each set once: size, resolution"),
        "worlds/known-terms": Entry("elsewhere.tables.worlds:known_terms", "a world whose shift decomposition is known"),
        "worlds/linear-gaussian": Entry("elsewhere.tables.worlds:linear_gaussian", "a world whose home-elsewhere line is known"),
    },
    "metrics": {
        "accuracy": Entry("elsewhere.metrics.classification:ACCURACY", "share of examples predicted right"),
        "balanced_accuracy": Entry("elsewhere.metrics.classification:BALANCED_ACCURACY", "mean recall over classes"),
        "nll": Entry("elsewhere.metrics.classification:NLL", "negative log-likelihood, nats"),
        "brier": Entry("elsewhere.metrics.classification:BRIER", "Brier score (halved for two classes)"),
        "auroc": Entry("elsewhere.metrics.classification:AUROC", "area under the ROC curve; several classes: mean of one against rest"),
        "top5_accuracy": Entry("elsewhere.metrics.classification:TOP5", "share of labels among the 5 most probable classes"),
        "top10_accuracy": Entry("elsewhere.metrics.classification:TOP10", "share of labels among the 10 most probable classes"),
        "inferred_disparity": Entry("elsewhere.metrics.inferred_groups:INFERRED_DISPARITY", "demographic disparity between the two groups that disagree most on the scale of the logits"),
        "majority_share": Entry("elsewhere.metrics.classification:MAJORITY_SHARE", "share of the most frequent class there: what always guessing it gets"),
        "ece": Entry("elsewhere.metrics.calibration:ECE", "expected calibration error, 10 equal bins"),
        "confidence": Entry("elsewhere.metrics.calibration:CONFIDENCE", "mean probability of the predicted class"),
        "overconfidence": Entry("elsewhere.metrics.calibration:OVERCONFIDENCE", "mean confidence minus accuracy"),
        "squared_error": Entry("elsewhere.metrics.regression:SQUARED_ERROR", "mean squared error"),
        "rmse": Entry("elsewhere.metrics.regression:RMSE", "root mean squared error"),
        "mae": Entry("elsewhere.metrics.regression:MAE", "mean absolute error"),
        "r2": Entry("elsewhere.metrics.regression:R2", "share of variance explained"),
        "demographic_disparity": Entry("elsewhere.metrics.groups:DEMOGRAPHIC_DISPARITY", "how far groups' predicted shares lie from all's"),
        "equalised_odds": Entry("elsewhere.metrics.groups:EQUALISED_ODDS", "largest difference between groups in a rate given the true class"),
        "average_precision": Entry("elsewhere.metrics.classification:AVERAGE_PRECISION", "area under precision and recall of the second of two classes"),
        "acceptance": Entry("elsewhere.metrics.groups:ACCEPTANCE", "share of examples predicted the second of two classes"),
        "ddp": Entry("elsewhere.metrics.groups:DDP", "acceptance rate of the second of two groups minus that of the first"),
        "worst_group_accuracy": Entry("elsewhere.metrics.groups:WORST_GROUP_ACCURACY", "accuracy of the group with the least"),
    },
    "explainers": {
        "shift-decomposition": Entry(
            "elsewhere.explain.shift_decomposition:ShiftDecomposition",
            "harder cases, a changed relation, or cases never seen?",
            (
                Option("features", "list", "decompose on these columns only"),
                Option("exclude", "list", "leave these columns out"),
                Option("classifier", "text", "logistic or boosting: what tells the domains apart"),
                Option("loss", "text", "a per-example metric to use as the loss"),
            ),
        ),
        "dataset-derivative": Entry(
            "elsewhere.explain.dataset_blame:DatasetBlame",
            "which training examples and source domains hurt or help each domain, and what removing them gives when re-run",
            (Option("learner", "text", "whose failure is explained"), Option("judge", "text", "explain this domain only")),
        ),
        "two-heads": Entry(
            "elsewhere.fairness.two_heads_map:TwoHeadsMap",
            "who pays, whether a network treats people by group inside, and what two explicit heads would give",
            (Option("group", "text", "the column of people compared, where the task names none"), Option("layers", "text", "last or all: which layers are probed for the group")),
        ),
        "feature-contribution": Entry("elsewhere.graphs.contribution:FeatureContribution", "do features or links carry the task? graphs with gcn, mlp and label-propagation"),
        "degrees": Entry(
            "elsewhere.graphs.contribution:Degrees",
            "accuracy by number of links, and how many nodes have so many",
            (Option("map", "flag", "also draw the embeddings that a cold-brew guesses (fits it again)"),),
        ),
        "neighbourhoods": Entry("elsewhere.graphs.neighbourhood_map:NeighbourhoodMap", "what an encoder of neighbourhoods learnt: levels, clusters, a map of its embeddings"),
        "domain-graph": Entry(
            "elsewhere.adapt.domain_map:DomainMap",
            "which domains of a graph it holds in, and how far they lie from labels",
            (Option("learner", "text", "whose errors are mapped"), Option("encodings", "flag", "also draw the encodings by domain (fits it again)")),
        ),
        "causal-map": Entry(
            "elsewhere.causal.causal_map:CausalMap",
            "what a causal learner found and whether to believe it: variables, graph, outcomes, checks",
            (Option("learner", "text", "whose model is shown"), Option("question", "text", "the combination whose outcome is drawn: env_1+env_2")),
        ),
        "causal-arms": Entry("elsewhere.causal.causal_map:CausalArms", "does identification pay: static factors, interventions nobody tried, sensor noise"),
        "factors": Entry(
            "elsewhere.images.factor_map:FactorMap",
            "which values of known factors fail, and what predictions are pulled to",
            (Option("learner", "text", "whose errors are mapped"), Option("split", "text", "which split is mapped")),
        ),
    },
    "studies": {
        "penguins-elsewhere": Entry("elsewhere.studies:penguins.toml", "learnt on Adelie, asked of Gentoo and Chinstrap"),
        "known-terms": Entry("elsewhere.studies:known-terms.toml", "the decomposition finds the terms of a world where they are known"),
        "accuracy-on-the-line": Entry("elsewhere.studies:accuracy-on-the-line.toml", "the line of the linear-Gaussian world is recovered"),
        "heart-hospitals-elsewhere": Entry("elsewhere.studies:heart-hospitals.toml", "trained in Cleveland, used in three other hospitals"),
        "digits-elsewhere": Entry("elsewhere.studies:digits-shifts.toml", "digits rotated, moved, blurred, noisy …: which learner holds, and what labels buy"),
        "handwriting-elsewhere": Entry("elsewhere.studies:handwriting.toml", "five groups of writers, each in turn the source: does home foretell elsewhere?"),
        "in-domain-generalisation": Entry("elsewhere.studies:in-domain-generalisation.toml", "eight learners on four splits of a factor grid: does any extrapolate? (an evening on 2 cores)"),
        "controlled-factors": Entry("elsewhere.studies:controlled-factors.toml", "what a network reads off images with new values of known factors"),
        "corruptions-elsewhere": Entry("elsewhere.studies:corruptions.toml", "photographs under 17 common corruptions: what they cost, what augmentation buys back"),
        "rooms-generalisation": Entry("elsewhere.studies:rooms-generalisation.toml", "the same in coloured rooms"),
        "cold-brew-isolated": Entry("elsewhere.studies:cold-brew.toml", "papers without citations: a student of a graph network against nine others"),
        "cold-brew-elsewhere": Entry("elsewhere.studies:cold-brew-elsewhere.toml", "nine graphs: where a student of links helps, and what foretells it"),
        "cold-brew-links": Entry("elsewhere.studies:cold-brew-links.toml", "which papers will a paper without citations cite? a student against its teacher"),
        "structural-embeddings": Entry("elsewhere.studies:structural-embeddings.toml", "16 layers with and without a free row for each node"),
        "graph-relational-15": Entry("elsewhere.studies:grda.toml", "15 domains on half a turn: neighbours aligned against everybody aligned"),
        "graph-relational-60": Entry("elsewhere.studies:grda-60.toml", "60 domains on a full turn"),
        "graph-relational-permuted": Entry("elsewhere.studies:grda-permuted.toml", "the graph's vertices exchanged: is it the reason?"),
        "temperatures-elsewhere": Entry("elsewhere.studies:temperatures.toml", "temperatures of half of the states foretold from the other half, and a linear row"),
        "neighborhood-prediction-names": Entry("elsewhere.studies:giant.toml", "names of pages without links: what predicting neighbours teaches an encoder"),
        "neighborhood-prediction-levels": Entry("elsewhere.studies:giant-levels.toml", "coarse to fine against the finest level alone, and against single links"),
        "neighborhood-prediction-rewired": Entry("elsewhere.studies:giant-rewired.toml", "links drawn anew at random: it must not help"),
        "neighborhood-prediction-networks": Entry("elsewhere.studies:giant-networks.toml", "the encoder before networks over the graph, and before none"),
        "noisy-labels": Entry("elsewhere.studies:noisy-labels.toml", "wrong labels in the source: what weights by the dataset derivative and its rivals give"),
        "extended-core": Entry("elsewhere.studies:extended-core.toml", "a small core and a pool: which examples to add, and when to stop"),
        "blamed-domains": Entry("elsewhere.studies:blamed-domains.toml", "which source domains a failure elsewhere is due to, and what a hundred labels from there are worth"),
        "wrong-domain": Entry("elsewhere.studies:wrong-domain.toml", "one source domain has wrong labels: found without data from elsewhere"),
        "fair-heads": Entry("elsewhere.studies:fair-heads.toml", "does a network trained for parity decide by group inside? drawn faces, where the truth is known"),
        "fair-heads-adult": Entry("elsewhere.studies:fair-heads-adult.toml", "the same on census income, with fairlearn's mitigators"),
        "fair-elsewhere": Entry("elsewhere.studies:fair-elsewhere.toml", "parity bought in California, in fifteen other states"),
        "unseen-interventions": Entry("elsewhere.studies:unseen-interventions.toml", "trained on single interventions, asked about pairs: a causal model against adding up and a black box"),
        "linear-latents": Entry("elsewhere.studies:linear-latents.toml", "causal latents behind a linear mixing: the method, its ablations and the reference's rule"),
        "linear-latents-30": Entry("elsewhere.studies:linear-latents-30.toml", "thirty latents behind sixty columns"),
        "doubted-assumptions": Entry("elsewhere.studies:doubted-assumptions.toml", "does the linear method say when its assumptions are broken?"),
        "strong-actions": Entry("elsewhere.studies:strong-actions.toml", "the outcome of actions beyond those that were tried, latents known up to an affine map"),
        "strong-actions-learnt": Entry("elsewhere.studies:strong-actions-learnt.toml", "the same with latents learnt"),
        "nonlinear-latents": Entry("elsewhere.studies:nonlinear-latents.toml", "causal latents behind a perceptron, ten learners"),
        "weak-pairs": Entry("elsewhere.studies:weak-pairs.toml", "pictures of balls: pairs that share factors against pictures alone"),
        "shared-views": Entry("elsewhere.studies:shared-views.toml", "what three views share"),
        "touched-variables": Entry("elsewhere.studies:touched-variables.toml", "variables that unknown actions touch"),
        "causal-elsewhere": Entry("elsewhere.studies:causal-elsewhere.toml", "does identification pay out of distribution? three arms (an evening on 2 cores)"),
        "causal-elsewhere-moved": Entry("elsewhere.studies:causal-elsewhere-moved.toml", "what would have to be true for a causal learner to extrapolate: two ways"),
        "causal-elsewhere-affine": Entry("elsewhere.studies:causal-elsewhere-affine.toml", "a third way: a code that is affine in the factors, from near pairs everywhere"),
        "acs-wages-elsewhere": Entry("elsewhere.studies:acs-wages.toml", "trained in California: no gap worth explaining"),
    },
    "networks": {
        "mlp": Entry("elsewhere.nn.mlp:mlp", "multilayer perceptron: width, depth, dropout"),
        "small-cnn": Entry("elsewhere.nn.cnn:small_cnn", "four convolutions and the mean over the picture: width, stride"),
        "random-conv": Entry("elsewhere.nn.cnn:random_conv", "random convolution features, never trained: filters, seed"),
        "encoder": Entry("elsewhere.nn.cnn:encoder", "strided convolutions and one layer: width"),
        "decoder": Entry("elsewhere.nn.cnn:decoder", "the mirror of encoder: latent, width"),
        "vae": Entry("elsewhere.nn.variational:vae", "a variational autoencoder: latent"),
        "contrast": Entry("elsewhere.nn.variational:contrast", "the network of permutation-contrastive learning: latent"),
        "coordconv": Entry("elsewhere.nn.geometric:coordconv", "encoder with coordinates as channels: width"),
        "coordinate-mlp": Entry("elsewhere.nn.geometric:coordinate_mlp", "a perceptron on each pixel and its place: width, depth"),
        "rotation-equivariant": Entry("elsewhere.nn.geometric:rotation_equivariant", "convolutions equivariant to quarter turns: width"),
        "spatial-transformer": Entry("elsewhere.nn.geometric:spatial_transformer", "an affine alignment, then encoder: width"),
        "vit": Entry("elsewhere.nn.vit:vit", "a small vision transformer: patch, width, depth, heads"),
        "torchvision": Entry("elsewhere.nn.backbones:torchvision", "torchvision:NAME, a published backbone: side, weights"),
        "graph-convolutions": Entry("elsewhere.graphs.networks:graph_convolutions", "convolutions over a graph, with structural embeddings if asked for"),
        "sparse-mlp": Entry("elsewhere.graphs.networks:sparse_mlp", "a perceptron over sparse features: width, depth, dropout"),
        "bag-encoder": Entry("elsewhere.graphs.encoders:bag_encoder", "an encoder of sparse text or words: width, deep"),
        "feature-encoder": Entry("elsewhere.graphs.encoders:feature_encoder", "an encoder of dense features: width"),
        "text-encoder": Entry("elsewhere.graphs.encoders:text_encoder", "a Transformer over texts: config, tokenizer, length"),
        "embedding-mlp": Entry("elsewhere.graphs.networks:embedding_mlp", "the network of Graph-MLP: width, dropout"),
        "tapered-mlp": Entry("elsewhere.fairness.networks:tapered_mlp", "a perceptron of 64 and 32 units: widths"),
        "pooled-cnn": Entry("elsewhere.fairness.networks:pooled_cnn", "two convolutions with pooling, for small pictures: width"),
        "conditioned": Entry("elsewhere.nn.conditioned:conditioned", "a network told the place of an example's domain: embedding, width, inner"),
        "code": Entry("elsewhere.causal.networks:code", "an encoder of vectors or pictures: outputs, width, depth, residual, architecture"),
        "keypoints": Entry("elsewhere.causal.networks:keypoints", "convolutions and the mean place of each map: width"),
        "pixels": Entry("elsewhere.causal.networks:pixels", "a decoder of pictures: latents"),
        "autoencoder": Entry("elsewhere.causal.networks:autoencoder", "an autoencoder with a Gaussian code, of vectors or pictures: latents, width, depth"),
        "interventional-odds": Entry("elsewhere.causal.networks:interventional_odds", "the network of contrastive-interventional: latents, width, depth"),
        "identifiable-vae": Entry("elsewhere.causal.networks:identifiable_vae", "the network of identifiable-vae: environments, latents, width, depth"),
        "view-encoders": Entry("elsewhere.causal.networks:view_encoders", "one encoder a view, or one for all: shapes, outputs, shared"),
        "linear-in-actions": Entry("elsewhere.causal.networks:linear_in_actions", "the autoencoder of intervention-extrapolation: latents, width, depth"),
        "additive-outcome": Entry("elsewhere.causal.networks:additive_outcome", "two perceptrons, added: width"),
        "interactions": Entry("elsewhere.causal.interaction_network:interactions", "the network of binary-interactions: latents, action, hidden"),
        "conditional-gaussian": Entry("elsewhere.causal.conditional:conditional_gaussian", "from what is done to a normal distribution: outputs, width"),
        "timm": Entry("elsewhere.nn.backbones:timm", "timm:NAME, a published backbone: side, weights"),
    },
    "readers": {
        "table": Entry(
            "elsewhere.tables.reader:read",
            "a CSV or Parquet table with a column that says where a row comes from",
            _TABLE_OPTIONS,
            (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq"),
            source="elsewhere.tables.fitting:source",
            new="elsewhere.tables.fitting:new_rows",
            objects=("pandas:DataFrame", "pandas.core.frame:DataFrame"),
        ),
        "graph": Entry(
            "elsewhere.graphs.reader:read",
            "a graph: an .npz, or a table of nodes (or lines of text) with --edges; PyG Data and networkx from Python",
            _GRAPH_OPTIONS,
            (".npz",),
            source="elsewhere.graphs.reader:source",
            new="elsewhere.graphs.reader:new_nodes",
            objects=("elsewhere.graphs.data:Graph", "torch_geometric.data.data:Data", "networkx.classes.graph:Graph"),
            also=(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq", ".txt", ".txt.gz"),
            asked_by="edges",
        ),
        "interventions": Entry(
            "elsewhere.causal.reader:read",
            "a table with a column that says what was done in a row: --intervention",
            _INTERVENTION_OPTIONS,
            source="elsewhere.causal.reader:source",
            new="elsewhere.causal.reader:new",
            also=(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq"),
            asked_by="intervention",
            asks=_ASKS,
        ),
        "pictures": Entry(
            "elsewhere.images.folders:read",
            "a folder of pictures, <domain>/<class>/*.jpg, or with a table of factors beside them",
            _FOLDER_OPTIONS,
            ("/",),
            new="elsewhere.images.folders:new_pictures",
        ),
        "digit-pictures": Entry("elsewhere.images.tasks:new_pictures", "pictures of digits, a file or a folder, for a fitted model", new="elsewhere.images.tasks:new_pictures"),
    },
}


@cache
def _all() -> dict[str, dict[str, Entry]]:
    found = {kind: dict(entries) for kind, entries in _CATALOGUE.items()}
    for point in entry_points(group="elsewhere"):
        more: Mapping[str, Mapping[str, Entry]] = point.load()
        for kind, names in more.items():
            for name, entry in names.items():
                if name in found.setdefault(kind, {}) and found[kind][name] != entry:
                    raise UserError(f"two packages register the {kind[:-1]} {name!r}: uninstall one of {found[kind][name].target} and {entry.target}")
                found[kind][name] = entry
    return found


def entries(kind: str) -> dict[str, Entry]:
    """Return the entries of a kind by name."""
    if kind not in KINDS:
        raise UserError(f"no kind {kind!r}{did_you_mean(kind, KINDS)}")
    return _all().get(kind, {})


def entry(kind: str, name: str) -> Entry:
    """Return one entry; an unknown name is a ``UserError`` with the nearest known one."""
    known = entries(kind)
    if name not in known:
        raise UserError(f"no {kind.removesuffix('s') if kind != 'studies' else 'study'} {name!r}{did_you_mean(name, known)}")
    return known[name]


def get(kind: str, name: str) -> Any:
    """Import and return what a name stands for."""
    from elsewhere.task import resolve

    return resolve(entry(kind, name).target)


def options(kind: str, of: Literal["options", "asks"] = "options") -> dict[str, Option]:
    """Return every option that the entries of a kind declare (``asks``: for predictions), by name, for one command line."""
    found: dict[str, Option] = {}
    for e in entries(kind).values():
        for option in getattr(e, of):
            if found.setdefault(option.name, option).type != option.type:
                raise UserError(f"option --{option.name} is declared with two types")
    return found
