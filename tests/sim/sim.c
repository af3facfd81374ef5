/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SPDX-FileCopyrightText: The nbd-attach authors */
/*
 * sim: runs many worlds and reports as TAP, one line a combination of settings. See the usage
 * text.
 */
#include "world.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 12, JOBS_MAX = 64, PLANT_SEEDS = 200000 };

static const char usage[] =
	"Usage: sim [-n SEEDS] [-f FIRST] [-j JOBS] [-q] [COMBINATION]   runs many worlds\n"
	"       sim -v SEED COMBINATION                                  tells the story of one\n"
	"       sim -p [COMBINATION]                                     plants faults, to be found\n"
	"  -n  seeds of all combinations together, default 20000    -f  the first one, default 1\n"
	"  -j  processes that share them    -q  stop at the first failure\n"
	"Combination, all of them by default:\n"
	"  -C 1|2|4  connections   -t 0|30  request timeout   -s 1|2  servers   -a 0|1  adopted\n"
	"  -k 0|1  kernel TLS\n";

/* What was found in one combination. */
struct tally {
	unsigned long long seeds, failed, steps, excuses[EXCUSES];
	struct {
		char text[120];
		unsigned long long first, count;
	} kind[KINDS];
	unsigned kinds;
};

static const struct {
	int connections, request_timeout_s;
} shapes[] = { { 1, 0 }, { 1, 30 }, { 2, 30 }, { 4, 30 } };

enum { COMBINATIONS = 8 * sizeof(shapes) / sizeof(shapes[0]) };

/* What is to be run. */
struct job {
	struct options combination[COMBINATIONS];
	unsigned combinations;
	uint64_t first, rounds; /* seeds of each combination */
	bool quit;
};

/* The world that lives, for a signal. */
static struct world *living;

/* A core that crashes has broken a rule. */
static void crash(int sig)
{
	world_fail(living, RULE_CONTRACT, "signal %d", sig);
}

static void catch_crashes(struct world *w)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
	struct sigaction action = { .sa_handler = crash, .sa_flags = SA_NODEFER };

	living = w;
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Failures that differ in numbers only are of one kind. */
static void add_failure(struct tally *t, const char *text, unsigned long long first,
			unsigned long long count)
{
	unsigned i = 0;

	while (i < t->kinds && strcmp(t->kind[i].text, text))
		i++;
	if (i == KINDS)
		return;
	if (i == t->kinds) {
		t->kinds++;
		snprintf(t->kind[i].text, sizeof(t->kind[i].text), "%s", text);
		t->kind[i].first = first;
		t->kind[i].count = 0;
	}
	if (first < t->kind[i].first)
		t->kind[i].first = first;
	t->kind[i].count += count;
}

static bool run_seed(struct world *w, const struct options *o, uint64_t seed, struct tally *t)
{
	bool good = !world_run(w, o, seed);
	char text[sizeof(t->kind[0].text)];

	t->seeds++;
	t->steps += w->steps;
	for (unsigned i = 0; i < EXCUSES; i++)
		t->excuses[i] += w->excuses[i] > 0;
	if (good)
		return true;
	t->failed++;
	snprintf(text, sizeof(text), "%s: %.90s", world_rule_name(w->broken), w->failure);
	for (char *c = text; *c; c++)
		if (*c >= '0' && *c <= '9')
			*c = '#';
	add_failure(t, text, seed, 1);
	return false;
}

/* One round in step of j, beginning with skip; all combinations in turn. */
static void run_share(struct world *w, const struct job *j, struct tally *t, uint64_t skip,
		      unsigned step)
{
	for (uint64_t n = skip; n < j->rounds; n += step)
		for (unsigned i = 0; i < j->combinations; i++)
			if (!run_seed(w, &j->combination[i], j->first + n, &t[i]) && j->quit)
				return;
}

static void add_tally(struct tally *to, const struct tally *t)
{
	to->seeds += t->seeds;
	to->failed += t->failed;
	to->steps += t->steps;
	for (unsigned i = 0; i < EXCUSES; i++)
		to->excuses[i] += t->excuses[i];
	for (unsigned i = 0; i < t->kinds; i++)
		add_failure(to, t->kind[i].text, t->kind[i].first, t->kind[i].count);
}

static void print_tally(unsigned number, const struct tally *t, const struct options *o)
{
	printf("%s %u - %d connections, timeout %d, %d servers, %s, %s: %llu seeds\n",
	       t->failed ? "not ok" : "ok", number, o->connections, o->request_timeout_s,
	       o->servers, o->adopted ? "adopted" : "fresh", o->kernel_tls ? "kernel TLS" : "plain",
	       t->seeds);
	for (unsigned i = 0; i < t->kinds; i++)
		printf("# %llu x, first sim -v %llu -C %d -t %d -s %d -a %d -k %d: %s\n",
		       t->kind[i].count, t->kind[i].first, o->connections, o->request_timeout_s,
		       o->servers, o->adopted, o->kernel_tls, t->kind[i].text);
}

static void print_total(const struct tally *all, double took)
{
	printf("# %llu seeds, %llu failed, %.1f s, %.0f seeds/s, %.0f events a seed\n", all->seeds,
	       all->failed, took, (double)all->seeds / took,
	       (double)all->steps / (double)(all->seeds ? all->seeds : 1));
	for (unsigned i = 0; i < EXCUSES; i++)
		if (all->excuses[i])
			printf("# excused in %llu: %s\n", all->excuses[i],
			       world_excuse_name((enum excuse)i));
}

static bool run_all(struct world *w, const struct job *j, unsigned jobs)
{
	static struct tally all, one;
	double began = seconds();
	bool good = true;
	int status;
	struct tally(*t)[COMBINATIONS] = mmap(NULL, jobs * sizeof(*t), PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (t == MAP_FAILED)
		return false;
	printf("1..%u\n", j->combinations);
	fflush(stdout);
	for (unsigned i = 1; i < jobs; i++)
		if (!fork()) {
			run_share(w, j, t[i], i, jobs);
			_exit(0);
		}
	run_share(w, j, t[0], 0, jobs);
	while (wait(&status) > 0)
		good &= !status;
	for (unsigned i = 0; i < j->combinations; i++) {
		memset(&one, 0, sizeof(one));
		for (unsigned k = 0; k < jobs; k++)
			add_tally(&one, &t[k][i]);
		print_tally(i + 1, &one, &j->combination[i]);
		add_tally(&all, &one);
	}
	print_total(&all, seconds() - began);
	munmap(t, jobs * sizeof(*t));
	return good && !all.failed;
}

static bool is_wanted(int option, int value)
{
	return option < 0 || option == value;
}

static void choose_combinations(const struct options *asked, struct job *j)
{
	for (int i = 0; i < COMBINATIONS; i++) {
		struct options o = *asked;

		o.connections = shapes[i / 8].connections;
		o.request_timeout_s = shapes[i / 8].request_timeout_s;
		o.servers = 1 + i / 4 % 2;
		o.adopted = i / 2 % 2;
		o.kernel_tls = i % 2;
		if (is_wanted(asked->connections, o.connections) &&
		    is_wanted(asked->request_timeout_s, o.request_timeout_s) &&
		    is_wanted(asked->servers, o.servers) && is_wanted(asked->adopted, o.adopted) &&
		    is_wanted(asked->kernel_tls, o.kernel_tls))
			j->combination[j->combinations++] = o;
	}
}

/* --- planted faults ----------------------------------------------------------------------- */

static const struct planted {
	enum plant plant;
	unsigned rules; /* rules, one of which must find it: bits */
	const char *what;
} planted[] = {
	{ PLANT_NO_IDENTITY, 1U << RULE_OURS, "commands without a comparison of identities" },
	{ PLANT_NO_REPLY, 1U << RULE_ANSWER, "answers that are forgotten" },
	{ PLANT_TWO_REPLIES, 1U << RULE_ANSWER, "clients that are answered twice" },
	{ PLANT_NO_CUT, 1U << RULE_DURABLE | 1U << RULE_DATA, "connections that are not cut" },
	{ PLANT_CUT_DONE_EARLY, 1U << RULE_DURABLE | 1U << RULE_DATA,
	  "ends of cuts that are told too early" },
	{ PLANT_FORGETFUL, 1U << RULE_DURABLE | 1U << RULE_ONE_SERVER, "a record that is empty" },
	{ PLANT_NEVER_TAKEN, 1U << RULE_ONE_SLOT, "offers that seem never to be taken" },
	{ PLANT_ALWAYS_TAKEN, 1U << RULE_PROGRESS, "offers that seem always to be taken" },
	{ PLANT_DIAL_LOST, 1U << RULE_PROGRESS, "dials that are never answered" },
	{ PLANT_REFUSED, 1U << RULE_ONE_SERVER, "silence that looks like a refusal" },
	{ PLANT_OTHER_SERVER, 1U << RULE_ONE_SERVER, "dials that reach another server" },
	{ PLANT_SIZE_MADE_UP, 1U << RULE_SIZE, "sizes that are made up" },
};

static bool find_plant(struct world *w, const struct job *j, const struct planted *p)
{
	for (uint64_t n = 0; n < PLANT_SEEDS; n++) {
		struct options o = j->combination[n % j->combinations];

		o.plant = p->plant;
		if (world_run(w, &o, 1 + n) && p->rules & 1U << w->broken)
			return true;
	}
	return false;
}

static bool run_plants(struct world *w, const struct job *j)
{
	unsigned count = sizeof(planted) / sizeof(planted[0]);
	bool good = true;

	printf("1..%u\n", count);
	for (unsigned i = 0; i < count; i++) {
		bool found = find_plant(w, j, &planted[i]);

		printf("%s %u - found: %s\n", found ? "ok" : "not ok", i + 1, planted[i].what);
		if (found)
			printf("# seed %llu, rule \"%s\": %s\n", (unsigned long long)w->seed,
			       world_rule_name(w->broken), w->failure);
		fflush(stdout);
		good &= found;
	}
	return good;
}

static bool tell_story(struct world *w, struct options *o, uint64_t seed)
{
	o->story = true;
	if (world_run(w, o, seed))
		return false;
	STORY(w, "all is well, after %u events", w->steps);
	return true;
}

int main(int argc, char **argv)
{
	struct options o = { -1, -1, -1, -1, -1, PLANT_NOTHING, false };
	struct job j = { .first = 1 };
	uint64_t seeds = 20000, story = 0;
	struct world *w = calloc(1, sizeof(*w));
	bool plants = false, good;
	unsigned jobs = 1;
	int c;

	while ((c = getopt(argc, argv, "n:f:v:C:t:s:a:k:j:pq")) != -1) {
		long long number = optarg ? atoll(optarg) : 0;

		switch (c) {
		case 'n':
			seeds = (uint64_t)number;
			break;
		case 'f':
			j.first = (uint64_t)number;
			break;
		case 'v':
			story = (uint64_t)number;
			break;
		case 'C':
			o.connections = (int)number;
			break;
		case 't':
			o.request_timeout_s = (int)number;
			break;
		case 's':
			o.servers = (int)number;
			break;
		case 'a':
			o.adopted = (int)number;
			break;
		case 'k':
			o.kernel_tls = (int)number;
			break;
		case 'j':
			jobs = (unsigned)number;
			break;
		case 'p':
			plants = true;
			break;
		case 'q':
			j.quit = true;
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	choose_combinations(&o, &j);
	if (!w || !j.combinations || !jobs || jobs > JOBS_MAX || optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	j.rounds = (seeds + j.combinations - 1) / j.combinations;
	catch_crashes(w);
	good = story  ? tell_story(w, &j.combination[0], story) :
	       plants ? run_plants(w, &j) :
			run_all(w, &j, jobs);
	free(w);
	return !good;
}
