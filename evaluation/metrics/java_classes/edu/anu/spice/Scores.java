package edu.anu.spice;

/**
 * Prints SPICE's answer as JSON. SPICE's own main class does so only through Java's JavaScript engine, which Java 11
 * no longer has in every build.
 */
public class Scores {
    public static void main(String[] arguments) throws Exception {
        SpiceScorer scorer = new SpiceScorer();
        scorer.scoreBatch(new SpiceArguments(arguments));
        System.out.println(scorer.stats.toJSONString());
    }
}
